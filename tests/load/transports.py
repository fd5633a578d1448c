"""gRPC and HTTP under gevent, with requests encoded in advance.

Messages are those of tritonclient. Its clients would encode each request while the clock runs.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

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
from tests.load import answers
from tests.load.answers import Answer, Failure, Refused, ServerFailed, TimedOut, Unreachable

# Required before the first channel; Locust has patched the standard library by now.
grpc_gevent.init_gevent()

HEADER_LENGTH = "Inference-Header-Content-Length"
METHOD = "/inference.GRPCInferenceService/ModelInfer"
USERS_PER_CHANNEL = 8
UNEXPECTED = "unexpected response"
OUTPUTS = ("CLASS_ID", "PROBABILITY", "LABEL")
STATUSES: dict[Any, type[Failure]] = {
    grpc.StatusCode.INVALID_ARGUMENT: Refused,
    grpc.StatusCode.UNAVAILABLE: answers.Overloaded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: answers.Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: TimedOut,
    400: Refused,
    429: answers.Overloaded,
    503: answers.Overloaded,
    504: TimedOut,
}
# gRPC reports failed connections as UNAVAILABLE, with one of these messages.
LOST = ("failed to connect", "Socket closed", "Connection reset", "recvmsg", "DNS", "Broken pipe")


@dataclass(frozen=True)
class Message:
    """An encoded request or reply; `header_length` is the length of HTTP's JSON header."""

    body: bytes
    header_length: int | None = None


@dataclass(frozen=True)
class Connection:
    """One user's connection. `send` raises Failure for errors and missing responses."""

    send: Callable[[Message], Message]
    close: Callable[[], None]


class GrpcTransport:
    """gRPC, with channels shared by several users.

    Under gevent, grpc needs a thread of gevent's pool, which has ten, for every blocking call, and
    for every channel whose calls are futures. Further users would wait for a thread while their
    clock runs. So this uses futures, shares channels as tritonclient does, and grows the pool.
    """

    method = "gRPC"

    def __init__(self, endpoint: Endpoint, model: str, timeout: float) -> None:
        self._endpoint = endpoint
        self._model = model
        self._timeout = timeout
        self._users: Counter[Any] = Counter()

    def encode(self, images: Sequence[bytes], top_k: int | None) -> Message:
        """Serialize a ModelInferRequest; a `top_k` of None leaves it to the server."""
        request = service_pb2.ModelInferRequest(model_name=self._model)
        request.inputs.add(name="IMAGE", datatype="BYTES", shape=[len(images), 1])
        elements = (len(image).to_bytes(4, "little") + image for image in images)
        request.raw_input_contents.append(b"".join(elements))
        if top_k is not None:
            request.parameters["top_k"].int64_param = top_k
        return Message(request.SerializeToString())

    def decode(self, reply: Message) -> Answer:
        """Parse a ModelInferResponse; raises ServerFailed for anything else."""
        try:
            response = service_pb2.ModelInferResponse.FromString(reply.body)
        except DecodeError:
            raise ServerFailed(UNEXPECTED) from None
        return _answer(tritonclient.grpc.InferResult(response))

    def connect(self) -> Connection:
        """Use the first channel with room for another user, or open one."""
        free = (each for each, users in self._users.items() if users < USERS_PER_CHANNEL)
        channel = next(free, None) or self._open()
        self._users[channel] += 1
        call = channel.unary_unary(METHOD)  # without serializers: bytes in and out
        return Connection(partial(self._send, call), lambda: self._users.subtract([channel]))

    def _send(self, call: Any, request: Message) -> Message:
        future = call.future(request.body, timeout=self._timeout)
        try:
            return Message(future.result())
        except grpc.RpcError as error:
            raise _grpc_failure(error) from None
        except gevent.GreenletExit:
            future.cancel()  # the user was stopped
            raise

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


class HttpTransport:
    """HTTP by geventhttpclient, as in tritonclient, with one connection for each user."""

    method = "HTTP"

    def __init__(self, endpoint: Endpoint, model: str, timeout: float) -> None:
        self._timeout = timeout
        self._url = URL(f"{'https' if endpoint.secure else 'http'}://{endpoint.address}")
        self._path = f"{self._url.path.rstrip('/')}/v2/models/{model}/infer"

    def encode(self, images: Sequence[bytes], top_k: int | None) -> Message:
        """Write the JSON header and the images; a `top_k` of None leaves it to the server."""
        tensor = tritonclient.http.InferInput("IMAGE", [len(images), 1], "BYTES")
        tensor.set_data_from_numpy(np.array(images, dtype=np.object_).reshape(-1, 1))
        body, header_length = tritonclient.http.InferenceServerClient.generate_request_body(
            [tensor],
            outputs=[tritonclient.http.InferRequestedOutput(name) for name in OUTPUTS],
            parameters=None if top_k is None else {"top_k": top_k},
        )
        return Message(bytes(body), int(header_length))

    def decode(self, reply: Message) -> Answer:
        """Parse JSON header and outputs; raises ServerFailed for anything else."""
        read = tritonclient.http.InferResult.from_response_body
        try:
            return _answer(read(reply.body, header_length=reply.header_length))
        except (InferenceServerException, ValueError):
            raise ServerFailed(UNEXPECTED) from None

    def connect(self) -> Connection:
        """Return a connection that opens with its first request."""
        timeouts = {"connection_timeout": self._timeout, "network_timeout": self._timeout}
        client = HTTPClient.from_url(self._url, concurrency=1, **timeouts)
        return Connection(partial(self._send, client), client.close)

    def _send(self, client: Any, request: Message) -> Message:
        headers = {HEADER_LENGTH: str(request.header_length)}
        try:
            response = client.post(self._path, body=request.body, headers=headers)
            body = bytes(response.read())
        except TimeoutError:
            raise TimedOut("deadline exceeded") from None
        except (OSError, HTTPConnectionClosed, HTTPParseError) as error:
            raise Unreachable(str(error) or type(error).__name__) from None
        if response.status_code != 200:
            raise _http_failure(response.status_code, body)
        header_length = response.get(HEADER_LENGTH)
        return Message(body, None if header_length is None else int(header_length))


Transport = GrpcTransport | HttpTransport
TRANSPORTS: dict[str, type[Transport]] = {"grpc": GrpcTransport, "http": HttpTransport}


def _answer(result: Any) -> Answer:
    class_ids, probabilities, labels = (result.as_numpy(name) for name in OUTPUTS)
    if class_ids is None or probabilities is None or labels is None:
        raise ServerFailed("an output is missing in the answer")
    return Answer(class_ids, probabilities, labels)


def _grpc_failure(error: Any) -> Failure:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and any(words in details for words in LOST):
        return Unreachable(details)
    return STATUSES.get(code, ServerFailed)(f"{code.name}: {details}")


def _http_failure(status: int, body: bytes) -> Failure:
    reason = ""  # error pages of proxies are not JSON
    with contextlib.suppress(ValueError, TypeError, KeyError):
        reason = f": {json.loads(body)['error']}"
    return STATUSES.get(status, ServerFailed)(f"{status}{reason}")
