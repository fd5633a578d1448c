"""Triton's own C++ load generator, as the older wheels of tritonclient carry it."""

import base64
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

from scripts.embedded import ServerError
from scripts.embedded.installation import find, prepend

INSTALL = (
    "pip install --no-deps --only-binary=:all: --platform manylinux1_x86_64 "
    "--target build/perf tritonclient==2.51.0"
)
THROUGHPUT = re.compile(r"^ *Throughput: (?P<rate>[\d.]+) infer/sec", re.MULTILINE)
# What it links to, and what the embedded Triton's wheel calls the same libraries.
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}


class PerfAnalyzer:
    """The executable at a path.

    PerfAnalyzer(Path("build/perf/bin/perf_analyzer")).rate("mobilenetv2", "localhost:8001", ...)

    Raises:
        ServerError: there is none.
    """

    def __init__(self, executable: Path) -> None:
        if not executable.is_file():
            raise ServerError(f"no perf_analyzer at {executable}; run: {INSTALL}")
        self._executable = executable.resolve()

    def rate(
        self, model: str, address: str, image: bytes, *, concurrency: int, count: int
    ) -> float:
        """Send an encoded image so many times over gRPC and return the images per second.

        Raises:
            ServerError: it fails; its own words say why.
        """
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            data = folder / "data.json"
            data.write_text(_input_data(image))
            command = [
                str(self._executable),
                *("-m", model, "-i", "grpc", "-u", address, "-b", "1"),
                *("--input-data", str(data)),
                *("--concurrency-range", str(concurrency), "--request-count", str(count)),
            ]
            environment = _environment(folder)
            result = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
        found = THROUGHPUT.search(result.stdout)
        if result.returncode or not found:
            said = (result.stderr.strip() or result.stdout.strip()).splitlines()
            raise ServerError(f"perf_analyzer failed: {said[-1] if said else 'it says nothing'}")
        return float(found["rate"])


def _input_data(image: bytes) -> str:
    """Write an image as the BYTES element that perf_analyzer sends: its length, and it."""
    element = len(image).to_bytes(4, "little") + image
    encoded = base64.b64encode(element).decode()
    return json.dumps({"data": [{"IMAGE": {"b64": encoded, "shape": [1]}}]})


def _environment(folder: Path) -> dict[str, str]:
    """Lend it the libraries of the embedded Triton, which few machines have."""
    for name, pattern in LIBRARIES.items():
        for library in find().libraries.glob(pattern):
            (folder / name).symlink_to(library)
    return os.environ | {"LD_LIBRARY_PATH": prepend([str(folder)], "LD_LIBRARY_PATH")}
