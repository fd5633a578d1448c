"""The HTTP load generator wrk, which needs little CPU time."""

import json
import math
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.embedded import ServerError
from scripts.errors import last_line
from scripts.measuring.figures import Figures

SCRIPT = Path(__file__).with_name("post.lua")
TIMEOUT_SECONDS = 30
WARM_UP = 1 / 8  # of a turn, before it
MIN_WARM_UP_SECONDS = 0.25
# An open loop has connections for the requests of a quarter of a second, and for 128 that wait, as
# far as the usual limit of 1,024 open files allows.
SPARE_SECONDS = 0.25
SPARE_CONNECTIONS = 128
MAX_CONNECTIONS = 900


@dataclass(frozen=True)
class InferRequest:
    """The body of a request to a model; its first `header_length` bytes are the JSON header."""

    model: str
    body: bytes
    header_length: int


class Wrk:
    """The program wrk, a name or a path, with a server at HOST:PORT as its target.

    Raises:
        ServerError: wrk is not installed, or lacks a library.
    """

    def __init__(self, address: str, program: str = "wrk") -> None:
        executable = shutil.which(program)
        if not executable:
            raise ServerError(
                f"the load generator {program} is not installed; run: apt-get install wrk"
            )
        result = subprocess.run([executable, "-v"], capture_output=True, text=True, check=False)
        if not result.stdout.startswith("wrk "):
            raise ServerError(f"{executable} does not run: {last_line(result.stderr)}")
        self._executable = executable
        self.address = address

    def closed_loop(self, request: InferRequest, *, clients: int, seconds: float) -> Figures:
        """Run clients that send their next request when they have their answer.

        Each client is a thread of wrk with one connection, which times every answer by itself.
        (wrk's own percentiles contain corrections for coordinated omission.) Returns `rate`,
        `p50_ms` and `p99_ms`.

        Raises:
            ServerError: a request failed or was refused; quotes the first such response.
        """
        output = self._run(request, clients, clients, seconds, rate=0)
        if output["failed"] or output["error"] or not output["answered"]:
            reason = f"{clients} clients: {output['error'] or 'no response'}"
            raise ServerError(f"{request.model} failed with {reason}")
        return {name: output[name] for name in ("rate", "p50_ms", "p99_ms")}

    def open_loop(self, request: InferRequest, *, rate: float, seconds: float) -> Figures:
        """Offer `rate` images per second at random times, independent of responses.

        A server that lets all requests wait occupies all connections in the end and is offered
        less. The request needs a JSON header with a request id, by which responses are matched.
        Returns the rates offered and answered, the shares refused (HTTP 503) and failed, and
        percentiles of answers and refusals.

        Raises:
            ServerError: wrk failed.
        """
        connections = min(round(rate * SPARE_SECONDS) + SPARE_CONNECTIONS, MAX_CONNECTIONS)
        output = self._run(request, connections, 1, seconds, rate)
        total = output["answered"] + output["refused"] + output["failed"]
        if not total:
            raise ServerError(f"{request.model} sent no response at {rate:.0f} images/s")
        figures = {
            "offered_rate": total / output["seconds"],
            "refused_share": output["refused"] / total,
            "failed_share": output["failed"] / total,
        }
        measured = ("rate", "p50_ms", "p99_ms", "refusal_p50_ms")
        return figures | {name: output[name] for name in measured if output[name] is not None}

    def _run(
        self, request: InferRequest, connections: int, threads: int, seconds: float, rate: float
    ) -> dict[str, Any]:
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
                f"http://{self.address}/v2/models/{request.model}/infer",
                *("--", str(body), str(request.header_length), str(warm_up), str(rate)),
            ]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
        return parse(result.stdout, result.stderr)


def parse(stdout: str, stderr: str) -> dict[str, Any]:
    """Return the JSON object that post.lua printed.

    Raises:
        ServerError: it printed none; quotes wrk's last line.
    """
    if found := re.search(r"^\{.*\}$", stdout, re.MULTILINE):
        return dict(json.loads(found[0]))
    raise ServerError(f"wrk failed: {last_line(stderr, stdout)}")
