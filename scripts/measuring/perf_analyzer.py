"""Triton's own C++ load generator, which older wheels of tritonclient contain."""

import base64
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

from scripts.embedded import ServerError
from scripts.embedded.installation import find, prepend
from scripts.errors import last_line

INSTALL = (
    "pip install --no-deps --only-binary=:all: --platform manylinux1_x86_64 "
    "--target build/perf tritonclient==2.51.0"
)
MEAN = re.compile(r"^ *Avg latency: (\d+) usec", re.MULTILINE)
# Libraries that it links to and few machines have, and their files in the embedded Triton's wheel.
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}


class PerfAnalyzer:
    """The executable at a path.

    Raises:
        ServerError: the file does not exist.
    """

    def __init__(self, executable: Path) -> None:
        if not executable.is_file():
            raise ServerError(f"no perf_analyzer at {executable}; run: {INSTALL}")
        self._executable = executable.resolve()

    def rate(self, model: str, address: str, image: bytes, *, clients: int, count: int) -> float:
        """Send an image `count` times over gRPC and return images per second.

        Raises:
            ServerError: perf_analyzer failed; quotes its last line.
        """
        element = base64.b64encode(len(image).to_bytes(4, "little") + image).decode()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            data = folder / "data.json"
            data.write_text(json.dumps({"data": [{"IMAGE": {"b64": element, "shape": [1]}}]}))
            command = [
                *(str(self._executable), "-m", model, "-i", "grpc", "-u", address, "-b", "1"),
                *("--input-data", str(data), "--concurrency-range", str(clients)),
                *("--request-count", str(count)),
            ]
            libraries = find().libraries
            for file, pattern in LIBRARIES.items():
                for library in libraries.glob(pattern):
                    (folder / file).symlink_to(library)
            env = os.environ | {"LD_LIBRARY_PATH": prepend([name], "LD_LIBRARY_PATH")}
            result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        # Little's law. The throughput that it prints is less precise: with a number of requests, it
        # rounds the duration up to whole seconds.
        return clients / mean_seconds(result.stdout, result.stderr)


def mean_seconds(stdout: str, stderr: str) -> float:
    """Return the mean latency in perf_analyzer's output.

    Raises:
        ServerError: it does not contain one; quotes the last line.
    """
    if found := MEAN.search(stdout):
        return int(found[1]) / 1e6
    raise ServerError(f"perf_analyzer failed: {last_line(stderr, stdout)}")
