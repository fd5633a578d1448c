"""What a running Triton says of itself over HTTP, and waiting until it has nothing to do."""

import time
from dataclasses import dataclass
from typing import Any

import requests

from scripts.embedded import ServerError
from scripts.measuring.figures import Step
from scripts.measuring.wrk import Request

NANOSECONDS = 1e6  # in a millisecond
SECONDS = 120  # for one answer
PAUSE_SECONDS = 0.05
PHASES = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True)
class Counters:
    """A model's counters since it was loaded: times in ns, images, and executions of batches."""

    queue: int
    compute_input: int
    compute_infer: int
    compute_output: int
    requests: int
    images: int
    executions: int


class Triton:
    """A server at HOST:PORT.

    Raises:
        ServerError: it does not answer.
    """

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}/v2"
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment does not lead to this machine

    def __enter__(self) -> "Triton":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def version(self) -> str:
        """The server's own version, such as 2.51.0."""
        return str(self._ask("")["version"])

    def counters(self, model: str) -> Counters:
        """Read a model's statistics."""
        return read(self._ask(f"/models/{model}/stats")["model_stats"][0])

    def settle(self, request: Request) -> None:
        """Wait until what came before is done: until a request, put last in the queue, is answered.

        Raises:
            ServerError: it is not answered, for another reason than too many waiting.
        """
        deadline = time.monotonic() + SECONDS
        while not self._is_answered(request):
            if time.monotonic() > deadline:
                raise ServerError(f"{request.model} is still busy after {SECONDS} s")
            time.sleep(PAUSE_SECONDS)

    def _is_answered(self, request: Request) -> bool:
        answer = self._send("POST", f"/models/{request.model}/infer", request)
        if answer.status_code == requests.codes.unavailable:
            return False
        _check(answer, request.model)
        return True

    def _ask(self, path: str) -> dict[str, Any]:
        answer = self._send("GET", path)
        _check(answer, answer.url)
        said: dict[str, Any] = answer.json()
        return said

    def _send(self, method: str, path: str, request: Request | None = None) -> requests.Response:
        headers, body = {}, None
        if request:
            headers = {"Inference-Header-Content-Length": str(request.header_length)}
            body = request.body
        try:
            return self._session.request(
                method, self._url + path, data=body, headers=headers, timeout=SECONDS
            )
        except requests.RequestException as error:
            raise ServerError(f"no Triton answers at {self._url}: {error}") from error


def read(statistics: dict[str, Any]) -> Counters:
    """Read one model's part of Triton's statistics."""
    of_requests = statistics["inference_stats"]
    return Counters(
        **{phase: int(of_requests[phase]["ns"]) for phase in PHASES},
        requests=int(of_requests["success"]["count"]),
        images=int(statistics["inference_count"]),
        executions=int(statistics["execution_count"]),
    )


def between(before: Counters, after: Counters) -> Step:
    """Tell what became of the images that were answered between two readings.

    Times are means over requests, which are images where each holds one.

    Raises:
        ServerError: there were none.
    """
    count = after.requests - before.requests
    executions = after.executions - before.executions
    if count < 1 or executions < 1:
        raise ServerError("Triton's statistics count no image; measure for more --seconds")
    queue, compute_input, compute_infer, compute_output = (
        (getattr(after, phase) - getattr(before, phase)) / NANOSECONDS / count for phase in PHASES
    )
    batch = (after.images - before.images) / executions
    return Step(queue, compute_input, compute_infer, compute_output, batch)


def _check(answer: requests.Response, what: str) -> None:
    if not answer.ok:
        raise ServerError(f"{what} failed: {answer.status_code} {answer.text[:300].strip()}")
