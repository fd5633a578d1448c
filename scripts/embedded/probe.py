"""Asks a server a question that only a working ensemble answers."""

import base64
import http.client
import json
import socket

from scripts.embedded.installation import ServerError

# The smallest image: one pixel, as GIF.
IMAGE = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==")
TIMEOUT_SECONDS = 5


class ProbeError(ServerError):
    """A model does not classify an image; `status` is the HTTP status, or 0."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def classify(connection: http.client.HTTPConnection, model: str) -> None:
    """Let an ensemble classify an image.

    Raises:
        ProbeError: it does not.
    """
    path = f"/v2/models/{model}/infer"
    status, body = _ask(connection, model, path, {"Inference-Header-Content-Length": "0"}, IMAGE)
    if status != http.HTTPStatus.OK:
        raise ProbeError(f"{model} does not classify an image: {_reason(body)}", status)


def greet(connection: http.client.HTTPConnection) -> None:
    """Wait until a server has accepted the connection.

    Raises:
        ProbeError: it does not.
    """
    _ask(connection, "the server", "/v2/health/live", {})


def _ask(
    connection: http.client.HTTPConnection,
    asked: str,
    path: str,
    headers: dict[str, str],
    data: bytes | None = None,
) -> tuple[int, bytes]:
    """Send a request, with `data` by POST; return the status and the content of the answer."""
    try:
        connection.request("POST" if data else "GET", path, data, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ProbeError(f"{asked} does not answer: {error or type(error).__name__}") from error


def connection(at: str, through: socket.socket | None = None) -> http.client.HTTPConnection:
    """Return a connection to HOST:PORT, on the given unconnected socket if there is one."""
    host, _, port = at.rpartition(":")
    made = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_SECONDS)
    if through:
        through.settimeout(TIMEOUT_SECONDS)
        through.connect((host, int(port)))
        made.sock = through
    return made


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, LookupError, TypeError):
        return body[:200].decode(errors="replace") or "no reason given"
