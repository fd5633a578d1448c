"""gRPC and HTTP under gevent, from bytes that are ready to bytes as they came.

Both take their messages from tritonclient. Its clients would build each request anew while the
clock runs, so what is sent here is encoded once.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gevent
import grpc
import numpy as np
import tritonclient.grpc
import tritonclient.http
from geventhttpclient import URL, HTTPClient
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError
from google.protobuf.message import DecodeError
from grpc.experimental import gevent as grpc_gevent
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from client._endpoint import Endpoint
from tests.load.answers import (
    Answer,
    Failure,
    Overloaded,
    Refused,
    ServerFailed,
    TimedOut,
    Unreachable,
)

# Before any channel; Locust has patched the standard library by now.
grpc_gevent.init_gevent()

METHOD = "/inference.GRPCInferenceService/ModelInfer"
USERS_PER_CHANNEL = 8
NO_ANSWER = "this is no answer of Triton's"
OUTPUTS = ("CLASS_ID", "PROBABILITY", "LABEL")
STATUSES: dict[Any, type[Failure]] = {
    grpc.StatusCode.INVALID_ARGUMENT: Refused,
    grpc.StatusCode.UNAVAILABLE: Overloaded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: TimedOut,
    400: Refused,
    429: Overloaded,
    503: Overloaded,
    504: TimedOut,
}
# gRPC's own words, all of them under UNAVAILABLE, for a connection that is none.
LOST = ("failed to connect", "Socket closed", "Connection reset", "recvmsg", "DNS", "Broken pipe")


@dataclass(frozen=True)
class Encoded:
    """A request's bytes; `header` is how many of them are HTTP's JSON part."""

    body: bytes
    header: int = 0


@dataclass(frozen=True)
class Reply:
    """An answer's bytes as they came; `header` is how many of them are HTTP's JSON part."""

    body: bytes
    header: int | None = None


class Wire(Protocol):
    """What a protocol does for one model on one server."""

    method: str

    def encode(self, images: Sequence[bytes], top_k: int | None) -> Encoded:
        """Encode a batch of images; `top_k` of None leaves it to the server."""

    def connect(self) -> "Connection":
        """Make one user's connection."""


class Connection(Protocol):
    """One user's way to the server."""

    def send(self, request: Encoded) -> Reply:
        """Send, wait, and return the reply as it came.

        Raises:
            Failure: of the kind that the server's answer, or its silence, calls for.
        """

    def decode(self, reply: Reply) -> Answer:
        """Read a reply.

        Raises:
            ServerFailed: it is none of Triton's.
        """

    def close(self) -> None:
        """End it."""


def wire(endpoint: Endpoint, model: str, timeout: float) -> Wire:
    """Choose by the endpoint's protocol."""
    return (GrpcWire if endpoint.protocol == "grpc" else HttpWire)(endpoint, model, timeout)


class GrpcWire:
    """gRPC, with a connection for every few users.

    grpc waits under gevent in one thread of gevent's pool for every call that blocks, and for every
    channel whose calls are futures. The pool has ten unless told, so users beyond them would wait
    for a thread, and the clock would count it. Hence futures, shared channels, as tritonclient
    shares its own, and a pool that grows with them.
    """

    method = "gRPC"

    def __init__(self, endpoint: Endpoint, model: str, timeout: float) -> None:
        self.timeout = timeout
        self._endpoint = endpoint
        self._model = model
        self._users: Counter[Any] = Counter()

    def encode(self, images: Sequence[bytes], top_k: int | None) -> Encoded:
        """Serialize a ModelInferRequest."""
        request = service_pb2.ModelInferRequest(model_name=self._model)
        request.inputs.add(name="IMAGE", datatype="BYTES", shape=[len(images), 1])
        request.raw_input_contents.append(_elements(images))
        if top_k is not None:
            request.parameters["top_k"].int64_param = top_k
        return Encoded(request.SerializeToString())

    def connect(self) -> "GrpcConnection":
        """Take the first channel that has room, or open another."""
        free = (each for each, users in self._users.items() if users < USERS_PER_CHANNEL)
        channel = next(free, None) or self._open()
        self._users[channel] += 1
        return GrpcConnection(channel, self)

    def leave(self, channel: Any) -> None:
        """Make room on a channel."""
        self._users[channel] -= 1

    def _open(self) -> Any:
        pool = gevent.get_hub().threadpool
        pool.maxsize = max(pool.maxsize, 10 + len(self._users))
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),  # or equal channels share one connection
            *([("grpc.enable_http_proxy", 0)] if self._endpoint.is_this_machine else []),
        ]
        address = self._endpoint.address
        if self._endpoint.secure:
            return grpc.secure_channel(address, grpc.ssl_channel_credentials(), options)
        return grpc.insecure_channel(address, options)


class GrpcConnection:
    """One user's part in a channel."""

    def __init__(self, channel: Any, wire: GrpcWire) -> None:
        self._channel = channel
        self._wire = wire
        self._call = channel.unary_unary(METHOD)  # bytes in and out

    def send(self, request: Encoded) -> Reply:
        """Send a ModelInferRequest and wait for the response."""
        future = self._call.future(request.body, timeout=self._wire.timeout)
        try:
            return Reply(future.result())
        except grpc.RpcError as error:
            raise _grpc_failure(error) from None
        except gevent.GreenletExit:
            future.cancel()  # the user was stopped, and nobody waits for the answer
            raise

    def decode(self, reply: Reply) -> Answer:
        """Parse a ModelInferResponse."""
        try:
            response = service_pb2.ModelInferResponse.FromString(reply.body)
        except DecodeError:
            raise ServerFailed(NO_ANSWER) from None
        return _answer(tritonclient.grpc.InferResult(response))

    def close(self) -> None:
        """Leave the channel to others."""
        self._wire.leave(self._channel)


class HttpWire:
    """HTTP by geventhttpclient, which is what tritonclient's own uses: a connection each."""

    method = "HTTP"

    def __init__(self, endpoint: Endpoint, model: str, timeout: float) -> None:
        self.timeout = timeout
        scheme = "https" if endpoint.secure else "http"
        self.url = URL(f"{scheme}://{endpoint.address}")
        self.path = f"{self.url.path.rstrip('/')}/v2/models/{model}/infer"

    def encode(self, images: Sequence[bytes], top_k: int | None) -> Encoded:
        """Write the JSON part and, behind it, the images."""
        tensor = tritonclient.http.InferInput("IMAGE", [len(images), 1], "BYTES")
        tensor.set_data_from_numpy(_column(images))
        body, header = tritonclient.http.InferenceServerClient.generate_request_body(
            [tensor],
            outputs=[tritonclient.http.InferRequestedOutput(name) for name in OUTPUTS],
            parameters=None if top_k is None else {"top_k": top_k},
        )
        return Encoded(bytes(body), int(header))

    def connect(self) -> "HttpConnection":
        """Make a connection; it opens with its first request."""
        client = HTTPClient.from_url(
            self.url, concurrency=1, connection_timeout=self.timeout, network_timeout=self.timeout
        )
        return HttpConnection(client, self)


class HttpConnection:
    """One user's connection."""

    def __init__(self, client: Any, wire: HttpWire) -> None:
        self._client = client
        self._path = wire.path

    def send(self, request: Encoded) -> Reply:
        """Post a body and read the answer's."""
        headers = {"Inference-Header-Content-Length": str(request.header)}
        try:
            response = self._client.post(self._path, body=request.body, headers=headers)
            body = bytes(response.read())
        except TimeoutError:
            raise TimedOut("no answer in time") from None
        except (OSError, HTTPConnectionClosed, HTTPParseError) as error:
            raise Unreachable(str(error) or type(error).__name__) from None
        if response.status_code != 200:
            raise _http_failure(response.status_code, body)
        header = response.get("Inference-Header-Content-Length")
        return Reply(body, None if header is None else int(header))

    def decode(self, reply: Reply) -> Answer:
        """Parse the JSON part, and the outputs behind it."""
        read = tritonclient.http.InferResult.from_response_body
        try:
            result = read(reply.body, header_length=reply.header)
        except (InferenceServerException, ValueError):
            raise ServerFailed(NO_ANSWER) from None
        return _answer(result)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _column(images: Sequence[bytes]) -> Any:
    return np.array(images, dtype=np.object_).reshape(-1, 1)


def _elements(images: Sequence[bytes]) -> bytes:
    """Write a BYTES tensor: each element's length, and the element."""
    return b"".join(len(image).to_bytes(4, "little") + image for image in images)


def _answer(result: Any) -> Answer:
    class_ids, probabilities, labels = (result.as_numpy(name) for name in OUTPUTS)
    if class_ids is None or probabilities is None or labels is None:
        raise ServerFailed("an output is missing in the answer")
    return Answer(class_ids, probabilities, labels)


def _grpc_failure(error: Any) -> Failure:
    code, said = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and any(words in said for words in LOST):
        return Unreachable(said)
    return STATUSES.get(code, ServerFailed)(f"{code.name}: {said}")


def _http_failure(status: int, body: bytes) -> Failure:
    said = ""  # a proxy's page says nothing in one line
    with contextlib.suppress(ValueError, TypeError, KeyError):
        said = f": {json.loads(body)['error']}"
    return STATUSES.get(status, ServerFailed)(f"{status}{said}")
