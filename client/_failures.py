"""What tritonclient raises, and what it lets through from below, as this package's errors."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import responses

from tritonclient.utils import InferenceServerException

from client._endpoint import Endpoint
from client._exceptions import (
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

# What gRPC and HTTP, Triton and the proxies before it, call the same thing.
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
# What Triton says under a status that means something else, too.
MESSAGES: Mapping[str, type[ClientError]] = {
    "has no available versions": ModelNotReady,
    "Request for unknown model": ModelNotFound,
    "This protocol is restricted": AccessDenied,
    "This API is restricted": AccessDenied,
    "Unable to find shared memory region": ServerUnavailable,  # it is another than it was
}
# How tritonclient begins to tell of an answer that is not Triton's.
NOT_JSON = "an exception occurred in the client while decoding the response"


@contextmanager
def translated(endpoint: Endpoint, lost: tuple[type[Exception], ...]) -> Iterator[None]:
    """Raise everything that goes wrong in the block as a ClientError; `lost` is a lost connection.

    Raises:
        ClientError: of the kind that the server's answer, or its silence, calls for.
    """
    try:
        yield
    except InferenceServerException as error:
        kind, message, cause = _kind(error), _message(error), error
    except asyncio.TimeoutError as error:
        kind, message, cause = DeadlineExceeded, "the time is over", error
    except (OSError, *lost) as error:  # type: ignore[misc]
        kind, message, cause = ServerUnavailable, str(error) or type(error).__name__, error
    except ValueError as error:
        kind, message, cause = ServerFailed, f"this is no answer of Triton's: {error}", error
    else:
        return
    raise kind(_say(kind, endpoint, message)) from cause


def _kind(error: InferenceServerException) -> type[ClientError]:
    for part, kind in MESSAGES.items():
        if part in error.message():
            return kind
    return STATUSES.get(error.status(), ServerFailed)


def _message(error: InferenceServerException) -> str:
    message = str(error.message())
    if not message.startswith(NOT_JSON):
        return message
    status = str(error.status())  # of a proxy, with a page of its own
    return f"HTTP {status} {responses.get(int(status), '')}".rstrip()


def _say(kind: type[ClientError], endpoint: Endpoint, message: str) -> str:
    if kind is ServerUnavailable:
        return f"{endpoint} is unavailable: {message}"
    if kind is DeadlineExceeded:
        return f"{endpoint} did not answer in time: {message}"
    return message
