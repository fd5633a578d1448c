"""The load generator wrk, which costs the machine next to nothing."""

import json
import math
import re
import resource
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.embedded import ServerError
from scripts.measuring.figures import Load, Overload

SCRIPT = Path(__file__).with_name("post.lua")
INSTALL = "apt-get install wrk"
TIMEOUT_SECONDS = 30
WARM_UP = 1 / 8  # of a turn, before it
MIN_WARM_UP_SECONDS = 0.25
# An open loop has connections for a quarter of a second's requests, and for 128 that wait.
SPARE_SECONDS = 0.25
SPARE_CONNECTIONS = 128
MOST_FILES, SPARE_FILES = 65_536, 64


@dataclass(frozen=True)
class Request:
    """What is posted to a model: a JSON header of `header_length` bytes, and the tensors."""

    model: str
    body: bytes
    header_length: int


class Wrk:
    """The executable of this machine, asking a server at HOST:PORT over HTTP.

    Makes room for its connections in this process's limit of open files, which a server that is
    started later inherits.

    Raises:
        ServerError: it is not installed.
    """

    def __init__(self, address: str) -> None:
        executable = shutil.which("wrk")
        if not executable:
            raise ServerError(f"the load generator wrk is not installed; run: {INSTALL}")
        self._executable = executable
        self._files = _allow_files()
        self._address = address

    def closed_loop(self, request: Request, *, clients: int, seconds: float) -> Load:
        """Let clients send their next request when they have their answer.

        Each is a thread of wrk with one connection, so that every answer is timed by itself. (wrk's
        own percentiles have made-up answers in place of those that it takes for missing.)

        Raises:
            ServerError: a request failed or was refused; the first such answer says why.
        """
        said = self._run(request, connections=clients, threads=clients, seconds=seconds)
        if said["failed"] or said["said"] or not said["answered"]:
            raise ServerError(
                f"{request.model} failed with {clients} clients: {said['said'] or 'no answer'}"
            )
        return Load(clients=clients, rate=said["rate"], p50=said["p50"], p99=said["p99"])

    def open_loop(self, request: Request, *, rate: float, seconds: float) -> Overload:
        """Offer `rate` images a second at random times, whether they are answered or not.

        A server that keeps all it gets waiting holds up the connections in the end, and gets less.
        Answers are told apart by the id that the request's JSON header must have, so that the times
        are of answered images alone.

        Raises:
            ServerError: wrk itself failed.
        """
        connections = round(rate * SPARE_SECONDS) + SPARE_CONNECTIONS
        said = self._run(request, connections=connections, threads=1, seconds=seconds, rate=rate)
        total = said["answered"] + said["refused"] + said["failed"]
        if not total:
            raise ServerError(f"{request.model} answered nothing at {rate:.0f} images/s")
        return Overload(
            offered=total / said["seconds"],
            rate=said["rate"],
            refused=said["refused"] / total,
            failed=said["failed"] / total,
            p50=said["p50"],
            p99=said["p99"],
            refusal_p50=said["refusal_p50"],
        )

    def _run(
        self,
        request: Request,
        *,
        connections: int,
        threads: int,
        seconds: float,
        rate: float = 0,
    ) -> dict[str, Any]:
        needed = connections + SPARE_FILES
        if needed > self._files:
            raise ServerError(f"{connections} connections are too many; run: ulimit -n {needed}")
        # wrk takes whole seconds only.
        whole = math.ceil(seconds + max(MIN_WARM_UP_SECONDS, WARM_UP * seconds))
        warm_up = whole - seconds
        with tempfile.TemporaryDirectory() as folder:
            body = Path(folder, "body")
            body.write_bytes(request.body)
            command = [
                self._executable,
                *("-c", str(connections), "-t", str(threads), "-s", str(SCRIPT)),
                *("-d", f"{whole}s", "--timeout", f"{TIMEOUT_SECONDS}s"),
                f"http://{self._address}/v2/models/{request.model}/infer",
                *("--", str(body), str(request.header_length), str(warm_up), str(rate)),
            ]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
        return parse(result.stdout, result.stderr)


def parse(stdout: str, stderr: str) -> dict[str, Any]:
    """Find what post.lua printed last.

    Raises:
        ServerError: it printed nothing; wrk's own words say why.
    """
    found = re.search(r"^\{.*\}$", stdout, re.MULTILINE)
    if not found:
        said = (stderr.strip() or stdout.strip()).splitlines()
        raise ServerError(f"wrk failed: {said[-1] if said else 'it says nothing'}")
    figures: dict[str, Any] = json.loads(found[0])
    return figures


def _allow_files() -> int:
    """Let processes that are started from now on open many files; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = [each for each in (hard, MOST_FILES) if each != resource.RLIM_INFINITY]
    most = max(soft, min(limits))
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
