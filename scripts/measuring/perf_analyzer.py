"""Triton's own C++ load generator, as the older wheels of tritonclient carry it."""

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
THROUGHPUT = re.compile(r"^ *Throughput: (?P<rate>[\d.]+) infer/sec", re.MULTILINE)
PERCENTILE = r"^ *p{} latency: (?P<microseconds>\d+) usec"
MEAN = re.compile(r"^ *Avg latency: (?P<microseconds>\d+) usec", re.MULTILINE)
# It measures in windows, three at the least, until they agree: here any three do.
WINDOWS, ANY = 3, "999"
# What it links to, and what the embedded Triton's wheel calls the same libraries.
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}


@dataclass(frozen=True)
class Input:
    """A tensor to send: its name, its bytes as Triton takes them, and its shape but the batch."""

    name: str
    data: bytes
    shape: tuple[int, ...]

    @classmethod
    def image(cls, image: bytes) -> "Input":
        """An encoded image for an ensemble: its length, and it."""
        return cls("IMAGE", len(image).to_bytes(4, "little") + image, (1,))

    def to_json(self) -> str:
        """Write what `--input-data` reads."""
        encoded = base64.b64encode(self.data).decode()
        return json.dumps({"data": [{self.name: {"b64": encoded, "shape": self.shape}}]})


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

        That is how many are under way over how long one is (Little's law): told a number of
        requests, it rounds the time that all of them took up to whole seconds.

        Raises:
            ServerError: it fails; its own words say why.
        """
        how = ("--request-count", str(count))
        said = self._run(model, address, Input.image(image), concurrency, how)
        return 1e6 * concurrency / int(_found(MEAN, said)["microseconds"])

    def load(
        self, model: str, address: str, what: Input, *, concurrency: int, seconds: float
    ) -> Load:
        """Send a tensor over gRPC for some seconds, so many at a time, and tell how it went.

        Raises:
            ServerError: it fails; its own words say why.
        """
        milliseconds = round(1000 * seconds / WINDOWS)
        how = (
            *("--measurement-interval", str(milliseconds), "--max-trials", str(WINDOWS)),
            *("--stability-percentage", ANY),
        )
        return parse(self._run(model, address, what, concurrency, how), concurrency)

    def _run(
        self, model: str, address: str, what: Input, concurrency: int, how: tuple[str, ...]
    ) -> str:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            data = folder / "data.json"
            data.write_text(what.to_json())
            command = [
                str(self._executable),
                *("-m", model, "-i", "grpc", "-u", address, "-b", "1"),
                *("--input-data", str(data), "--concurrency-range", str(concurrency), *how),
            ]
            environment = _environment(folder)
            result = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
        if result.returncode:
            raise _failure(result.stderr.strip() or result.stdout)
        return result.stdout


def parse(stdout: str, concurrency: int) -> Load:
    """Read the throughput and the latencies that it prints.

    Raises:
        ServerError: they are not there; its last line may say why.
    """
    patterns = (re.compile(PERCENTILE.format(each), re.MULTILINE) for each in (50, 99))
    p50, p99 = (int(_found(each, stdout)["microseconds"]) / 1000 for each in patterns)
    return Load(concurrency, float(_found(THROUGHPUT, stdout)["rate"]), p50, p99)


def _found(pattern: re.Pattern[str], stdout: str) -> re.Match[str]:
    if found := pattern.search(stdout):
        return found
    raise _failure(stdout)


def _failure(said: str) -> ServerError:
    lines = said.strip().splitlines()
    return ServerError(f"perf_analyzer failed: {lines[-1] if lines else 'it says nothing'}")


def _environment(folder: Path) -> dict[str, str]:
    """Lend it the libraries of the embedded Triton, which few machines have."""
    for name, pattern in LIBRARIES.items():
        for library in find().libraries.glob(pattern):
            (folder / name).symlink_to(library)
    return os.environ | {"LD_LIBRARY_PATH": prepend([str(folder)], "LD_LIBRARY_PATH")}
