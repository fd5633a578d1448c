"""The transport adapter: the differences between tritonclient's gRPC and HTTP clients."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._endpoint import Endpoint
from ._options import RequestOptions

# gRPC's default backoff grows to two minutes; a restarted server is back after ten seconds.
RECONNECT_MILLISECONDS = 100
MAX_RECONNECT_MILLISECONDS = 2000
ROUND_ROBIN = '{"loadBalancingConfig": [{"round_robin": {}}]}'


@dataclass(frozen=True)
class Transport:
    """How to connect with one protocol, and the keyword arguments that its calls take.

    `admin_header` names the header with the administrator's key: over gRPC, Triton's names begin
    with `triton-grpc-protocol-`. `connect` creates tritonclient's asyncio client and needs a
    running event loop; `tensor` is its InferInput class. `options` go with every call, `as_json`
    with calls that return JSON, and `compression` with inference. `connection_errors` are raised,
    besides OSError, when the connection fails.
    """

    admin_header: str
    connect: Callable[[], Any]
    tensor: Callable[[str, list[int], str], Any]
    options: dict[str, Any]
    as_json: dict[str, bool]
    compression: dict[str, str]
    connection_errors: tuple[type[Exception], ...] = ()


def transport(endpoint: Endpoint, options: RequestOptions) -> Transport:
    """Create the adapter for the endpoint's protocol and import only that protocol's packages."""
    return (_grpc if endpoint.protocol == "grpc" else _http)(endpoint, options)


def _grpc(endpoint: Endpoint, options: RequestOptions) -> Transport:
    triton = importlib.import_module("tritonclient.grpc.aio")
    tls: dict[str, Any] = {"ssl": endpoint.secure}
    if endpoint.secure and options.tls:
        tls["root_certificates"] = options.tls.ca
        tls["certificate_chain"] = options.tls.certificate
        tls["private_key"] = options.tls.key
    return Transport(
        admin_header="triton-grpc-protocol-admin-key",
        connect=lambda: triton.InferenceServerClient(
            endpoint.address, channel_args=_channel(endpoint, options), **tls
        ),
        tensor=triton.InferInput,
        options={"client_timeout": options.timeout},
        as_json={"as_json": True},
        compression=_compression(options, "compression_algorithm"),
    )


def _http(endpoint: Endpoint, options: RequestOptions) -> Transport:
    triton = importlib.import_module("tritonclient.http.aio")
    aiohttp = importlib.import_module("aiohttp")
    # Without a context aiohttp verifies with the system's certificate authorities.
    tls = {"ssl_context": options.tls.context()} if options.tls else {}
    return Transport(
        admin_header="admin-key",
        connect=lambda: triton.InferenceServerClient(
            endpoint.address,
            conn_limit=0,  # a stream limits its own concurrency
            conn_timeout=options.timeout,
            ssl=endpoint.secure,
            **tls,
        ),
        tensor=triton.InferInput,
        options={},
        as_json={},
        compression=_compression(
            options, "request_compression_algorithm", "response_compression_algorithm"
        ),
        connection_errors=(aiohttp.ClientError,),
    )


def _compression(options: RequestOptions, *keywords: str) -> dict[str, str]:
    return dict.fromkeys(keywords, options.compression) if options.compression else {}


def _channel(endpoint: Endpoint, options: RequestOptions) -> list[tuple[str, Any]]:
    """Return gRPC's channel arguments.

    See https://grpc.github.io/grpc/core/group__grpc__arg__keys.html for their names.
    """
    arguments: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.min_reconnect_backoff_ms", int(options.connect_timeout * 1000)),
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_MILLISECONDS),
        ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MILLISECONDS),
        # Otherwise a new channel would use the connection of the one that it replaces.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if endpoint.is_this_machine:
        # gRPC would use the environment's proxy even for a loopback address.
        return [*arguments, ("grpc.enable_http_proxy", 0)]
    # If the host name has several addresses, use all that respond.
    return [*arguments, ("grpc.service_config", ROUND_ROBIN)]
