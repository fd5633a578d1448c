"""Translates the exceptions of tritonclient and of the libraries below it into ClientError."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import responses

from tritonclient.utils import InferenceServerException

from ._endpoint import Endpoint
from ._exceptions import (
    AccessDenied,
    ClientError,
    DeadlineExceeded,
    InvalidImage,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    ServerFailed,
    ServerUnavailable,
)

# The status codes of gRPC and HTTP, from Triton and from proxies in front of it.
STATUSES: Mapping[str, type[ClientError]] = {
    "StatusCode.INVALID_ARGUMENT": InvalidRequest,
    "400": InvalidRequest,
    "413": InvalidImage,  # too large for a proxy
    "StatusCode.UNAUTHENTICATED": AccessDenied,
    "401": AccessDenied,
    "StatusCode.PERMISSION_DENIED": AccessDenied,
    "403": AccessDenied,
    "StatusCode.NOT_FOUND": ModelNotFound,
    "404": ModelNotFound,
    "StatusCode.DEADLINE_EXCEEDED": DeadlineExceeded,
    "504": DeadlineExceeded,
    "StatusCode.UNAVAILABLE": ServerUnavailable,
    "StatusCode.CANCELLED": ServerUnavailable,
    "429": ServerUnavailable,
    "499": ServerUnavailable,
    "502": ServerUnavailable,
    "503": ServerUnavailable,
}
REGION_NOT_OPENED = "Unable to open shared memory region"
SHARED_MEMORY_DISABLED = "Client shared memory is disabled"
# Parts of the messages of a server process that stops, or whose Python model has died.
LOST_PROCESS = (
    "Server is stopping",
    "Server not ready",
    "Stub process",  # "... 'birds_preprocess_0_0' is not healthy."
    "Failed to obtain the health mutex",  # the Python model died while it held it
)
# Parts of Triton's messages that are more specific than the status sent with them.
MESSAGES: Mapping[str, type[ClientError]] = {
    **dict.fromkeys(LOST_PROCESS, ServerUnavailable),
    "Failed to increase the shared memory pool size": ServerUnavailable,
    "mapped region for the grown shared memory": ServerUnavailable,
    "has no available versions": ModelNotReady,
    "Request for unknown model": ModelNotFound,
    "This protocol is restricted": AccessDenied,
    "This API is restricted": AccessDenied,
    "Unable to find shared memory region": ServerUnavailable,  # the server was restarted
    REGION_NOT_OPENED: InvalidRequest,
    SHARED_MEMORY_DISABLED: InvalidRequest,
}
# The image of a batch that the server rejected, and the reason.
REJECTED_IMAGE = re.compile(r"IMAGE\[(?P<position>\d+)\]: (?P<reason>.*)", re.DOTALL)
# What Triton says about a batch for a model that takes one image.
ONE_IMAGE = re.compile(r"unexpected shape for input 'IMAGE' .*Expected \[1,1\], got \[\d+,1\]")
# tritonclient's prefix for a response that is not JSON, such as a proxy's error page.
NOT_JSON = "an exception occurred in the client while decoding the response"


@contextmanager
def translated(
    endpoint: Endpoint, connection_errors: tuple[type[Exception], ...]
) -> Iterator[None]:
    """Raise every failure in the block as a ClientError.

    Raises:
        ClientError: the subclass that fits the response or the failed connection.
    """
    try:
        yield
    except InferenceServerException as error:
        raise _from_response(endpoint, error) from error
    except asyncio.TimeoutError as error:
        raise _error(DeadlineExceeded, endpoint, "deadline exceeded") from error
    except (OSError, *connection_errors) as error:  # type: ignore[misc]
        message = str(error) or type(error).__name__
        raise _error(ServerUnavailable, endpoint, message) from error
    except ValueError as error:
        raise ServerFailed(f"unexpected response: {error}") from error


def _from_response(endpoint: Endpoint, error: InferenceServerException) -> ClientError:
    message, status = str(error.message()), str(error.status())
    kind = next(
        (kind for part, kind in MESSAGES.items() if part in message),
        STATUSES.get(status, ServerFailed),
    )
    if SHARED_MEMORY_DISABLED in message:
        message = "the server does not accept shared memory; start it with --allow-client-shm=true"
    if REGION_NOT_OPENED in message:
        message = f"{message}; shared memory needs a client on the server's machine"
    if ONE_IMAGE.search(message):
        message = "the model takes one image a request; use a batch size of 1"
    if message.startswith(NOT_JSON):
        message = f"HTTP {status} {responses.get(int(status), '')}".rstrip()
    rejected = REJECTED_IMAGE.search(message) if issubclass(kind, InvalidRequest) else None
    if not rejected:
        failed = _error(kind, endpoint, message)
        if isinstance(failed, ServerUnavailable):
            failed.reconnect = any(part in message for part in LOST_PROCESS)
        return failed
    image = InvalidImage(rejected["reason"])
    image.position = int(rejected["position"])
    return image


def _error(kind: type[ClientError], endpoint: Endpoint, message: str) -> ClientError:
    if kind is ServerUnavailable:
        message = f"{endpoint} is unavailable: {message}"
    if kind is DeadlineExceeded:
        message = f"{endpoint} did not respond in time: {message}"
    return kind(message)
