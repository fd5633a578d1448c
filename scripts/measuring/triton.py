"""Requests to a running Triton over HTTP: its version, and waiting until its queue is empty."""

import time

import requests

from scripts.embedded import ServerError
from scripts.measuring.wrk import InferRequest

TIMEOUT_SECONDS = 120
PAUSE_SECONDS = 0.05


def version(address: str) -> str:
    """Return the version of the server at HOST:PORT, such as 2.51.0.

    Raises:
        ServerError: the server does not respond.
    """
    return str(_checked(_send("GET", f"http://{address}/v2")).json()["version"])


def settle(address: str, request: InferRequest) -> None:
    """Wait until earlier requests are done: until this one, queued last, is answered.

    Raises:
        ServerError: the request fails, or the queue stays full.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    url = f"http://{address}/v2/models/{request.model}/infer"
    headers = {"Inference-Header-Content-Length": str(request.header_length)}
    while True:
        response = _send("POST", url, request.body, headers)
        if response.status_code != requests.codes.unavailable or time.monotonic() > deadline:
            _checked(response)
            return
        time.sleep(PAUSE_SECONDS)


def _send(
    method: str, url: str, data: bytes | None = None, headers: dict[str, str] | None = None
) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False  # proxies of the environment cannot reach this machine
        try:
            return session.request(method, url, data=data, headers=headers, timeout=TIMEOUT_SECONDS)
        except requests.RequestException as error:
            raise ServerError(f"no Triton responds at {url}: {error}") from error


def _checked(response: requests.Response) -> requests.Response:
    if not response.ok:
        reason = f"{response.status_code} {response.text[:300].strip()}"
        raise ServerError(f"{response.url} failed: {reason}")
    return response
