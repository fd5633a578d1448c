"""`python3 -m scripts.container.health`: the container's health check.

One of the served classifiers, another one each time, must classify a tiny image. Docker does not
restart a container whose checks fail. Therefore the check ends a Triton that has not answered for
STUCK_SECONDS, and the container with it; then the restart policy applies.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Container, Mapping
from contextlib import closing, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

# The process to end, and how many requests it had completed at the last check. The time of the
# file's last change is the one from which a failed check ends the process.
STATE = Path(tempfile.gettempdir(), "triton-health")
START_SECONDS = 600  # to load all models
ENGINE_SECONDS = 3600  # instead, if TensorRT may have to compile engines
STUCK_SECONDS = 60
TURN_SECONDS = 10  # the interval of the checks in docker-compose.yml
REQUEST_SECONDS = 5

PIXEL = bytes.fromhex(  # a GIF of 1 x 1
    "47494638396101000100800000000000ffffff2c00000000010001000002024401003b"
)
RAW = {"Inference-Header-Content-Length": "0"}  # the body is the image


class Unhealthy(Exception):
    """Why the server does not work."""


def start(repository: Path) -> None:
    """Note that this process becomes Triton, and how long it may take to load its models."""
    engines = set()
    with suppress(AttributeError, KeyError, TypeError, ValueError):  # the first check reports it
        entries = _classifiers(repository).values()
        engines = {(entry.get("tuning") or {}).get("engine") for entry in entries}
    note(os.getpid(), 0, ENGINE_SECONDS if "tensorrt" in engines else START_SECONDS)


def check(address: str, repository: Path) -> None:
    """Check the server that `start` noted, and end it if it has not worked for too long.

    Raises:
        Unhealthy: it does not work.
    """
    if not STATE.exists():
        raise Unhealthy("not started")
    pid, before = map(int, STATE.read_text().split())
    try:
        completed = _completed(address)
        total = sum(completed.values())
        _classify(address, _name(repository, completed), progress=total > before)
    except (OSError, HTTPException, ValueError, Unhealthy) as error:
        if time.time() > STATE.stat().st_mtime:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise Unhealthy(f"{type(error).__name__}: {error}") from error
    note(pid, total, STUCK_SECONDS)


def note(pid: int, completed: int, seconds: float) -> None:
    """Note the process, its completed requests, and that it may fail checks for some time."""
    STATE.write_text(f"{pid} {completed}")
    deadline = time.time() + seconds
    os.utime(STATE, (deadline, deadline))


def _completed(address: str) -> dict[str, int]:
    """Return how many requests each model of a server that is ready has completed."""
    status, _ = _ask(address, "GET", "/v2/health/ready")
    if status != HTTPStatus.OK:
        raise Unhealthy("not ready")
    _, answer = _ask(address, "GET", "/v2/models/stats")
    return {
        model["name"]: int(model["inference_stats"]["success"]["count"])
        for model in json.loads(answer)["model_stats"]
    }


def _name(repository: Path, served: Container[str]) -> str | None:
    """Return the classifier whose turn it is, of those in the manifest that Triton serves."""
    classifiers = sorted(name for name in _classifiers(repository) if name in served)
    return classifiers[int(time.time() / TURN_SECONDS) % len(classifiers)] if classifiers else None


def _classifiers(repository: Path) -> dict[str, Any]:
    """Return the entries of the manifest by classifier; another generator's has none."""
    try:
        manifest = json.loads((repository / "manifest.json").read_bytes())
    except FileNotFoundError:
        return {}
    classifiers: dict[str, Any] = manifest["models"]
    return classifiers


def _classify(address: str, name: str | None, *, progress: bool) -> None:
    """Classify an image, if there is a classifier.

    A server that rejects the image or answers too late is busy, if it makes progress with others.
    """
    if name is None:
        return
    try:
        status, answer = _ask(address, "POST", f"/v2/models/{name}/infer", PIXEL, RAW)
    except TimeoutError:
        status, answer = HTTPStatus.SERVICE_UNAVAILABLE, b"no answer in time"
    busy = status == HTTPStatus.SERVICE_UNAVAILABLE and progress
    if status != HTTPStatus.OK and not busy:
        raise Unhealthy(f"{name}: {answer.decode(errors='replace')}")


def _ask(
    address: str,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Send a request, never through a proxy; return the status and the body of the response."""
    with closing(HTTPConnection(address, timeout=REQUEST_SECONDS)) as connection:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()


def main(arguments: list[str] | None = None) -> int:
    """Run the check; return 0 for a healthy server and 1 for another."""
    parser = argparse.ArgumentParser(prog="python3 -m scripts.container.health")
    parser.add_argument("--http", default="127.0.0.1:8000", metavar="HOST:PORT")
    parser.add_argument("--model-repository", type=Path, required=True, metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        check(options.http, options.model_repository)
    except Unhealthy as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
