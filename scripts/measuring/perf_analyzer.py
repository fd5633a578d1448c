"""Triton's own C++ load generator, which older wheels of tritonclient contain."""

import base64
import json
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from scripts.embedded import ServerError
from scripts.embedded.installation import find, prepend
from scripts.measuring.figures import Load

INSTALL = (
    "pip install --no-deps --only-binary=:all: --platform manylinux1_x86_64 "
    "--target build/perf tritonclient==2.51.0"
)
THROUGHPUT = r"^ *Throughput: ([\d.]+) infer/sec"
PERCENTILE = r"^ *p{} latency: (\d+) usec"
MEAN = r"^ *Avg latency: (\d+) usec"
# perf_analyzer measures at least three windows until their results are stable. The tolerance below
# accepts any three.
WINDOWS, TOLERANCE_PERCENT = 3, "999"
# Libraries that the executable links to, and their file names in the embedded Triton's wheel.
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}


@dataclass(frozen=True)
class InputTensor:
    """A tensor to send: its name, its bytes in Triton's layout, and its shape without the batch."""

    name: str
    data: bytes
    shape: tuple[int, ...]

    @classmethod
    def image(cls, image: bytes) -> "InputTensor":
        """Return an ensemble's input with the content of an image file."""
        return cls("IMAGE", len(image).to_bytes(4, "little") + image, (1,))

    def to_json(self) -> str:
        """Return the content of a file for `--input-data`."""
        encoded = base64.b64encode(self.data).decode()
        return json.dumps({"data": [{self.name: {"b64": encoded, "shape": self.shape}}]})


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

        The rate is the number of clients divided by the mean latency (Little's law), because with a
        number of requests perf_analyzer rounds the duration up to whole seconds.

        Raises:
            ServerError: perf_analyzer failed; quotes its last line.
        """
        limits = ("--request-count", str(count))
        output = self._run(model, address, InputTensor.image(image), clients, limits)
        return 1e6 * clients / _find(MEAN, output)

    def load(
        self, model: str, address: str, tensor: InputTensor, clients: int, *, seconds: float
    ) -> Load:
        """Send a tensor over gRPC from concurrent clients for some seconds.

        Raises:
            ServerError: perf_analyzer failed; quotes its last line.
        """
        milliseconds = round(1000 * seconds / WINDOWS)
        limits = (
            *("--measurement-interval", str(milliseconds), "--max-trials", str(WINDOWS)),
            *("--stability-percentage", TOLERANCE_PERCENT),
        )
        return parse(self._run(model, address, tensor, clients, limits))

    def _run(
        self, model: str, address: str, tensor: InputTensor, clients: int, limits: tuple[str, ...]
    ) -> str:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            data = folder / "data.json"
            data.write_text(tensor.to_json())
            command = [
                str(self._executable),
                *("-m", model, "-i", "grpc", "-u", address, "-b", "1"),
                *("--input-data", str(data), "--concurrency-range", str(clients), *limits),
            ]
            environment = _environment(folder)
            result = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
        if result.returncode:
            raise _failure(result.stderr.strip() or result.stdout)
        return result.stdout


def parse(output: str) -> Load:
    """Read throughput and percentiles from perf_analyzer's output.

    Raises:
        ServerError: the output does not contain them; quotes its last line.
    """
    p50, p99 = (_find(PERCENTILE.format(each), output) / 1000 for each in (50, 99))
    return Load(_find(THROUGHPUT, output), p50, p99)


def _find(pattern: str, output: str) -> float:
    if found := re.search(pattern, output, re.MULTILINE):
        return float(found[1])
    raise _failure(output)


def _failure(output: str) -> ServerError:
    lines = output.strip().splitlines()
    return ServerError(f"perf_analyzer failed: {lines[-1] if lines else 'no output'}")


def _environment(folder: Path) -> dict[str, str]:
    """Link the embedded Triton's libraries, which few machines have, into the library path."""
    for name, pattern in LIBRARIES.items():
        for library in find().libraries.glob(pattern):
            (folder / name).symlink_to(library)
    return os.environ | {"LD_LIBRARY_PATH": prepend([str(folder)], "LD_LIBRARY_PATH")}
