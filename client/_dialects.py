"""What tritonclient's two asyncio clients are told in different words."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from client._endpoint import Endpoint
from client._settings import Settings

# How soon gRPC tries a lost connection again: its own minute would be long for a server that is
# back after ten seconds.
RECONNECT_MILLISECONDS = 100
SLOWEST_RECONNECT_MILLISECONDS = 2000
ROUND_ROBIN = '{"loadBalancingConfig": [{"round_robin": {}}]}'


@dataclass(frozen=True)
class Dialect:
    """Keyword arguments for every call, for those that can answer in JSON, and for inference.

    `open` connects, inside a running event loop; `input` is the protocol's InferInput, and `lost`
    what is raised, besides OSError, when a connection is none.
    """

    open: Callable[[], Any]
    input: Callable[[str, list[int], str], Any]
    options: dict[str, Any]
    as_json: dict[str, bool]
    compression: dict[str, str]
    lost: tuple[type[Exception], ...] = ()


def dialect(endpoint: Endpoint, settings: Settings) -> Dialect:
    """Choose by the endpoint's protocol; only that protocol's packages are imported."""
    return (_grpc if endpoint.protocol == "grpc" else _http)(endpoint, settings)


def _grpc(endpoint: Endpoint, settings: Settings) -> Dialect:
    triton = importlib.import_module("tritonclient.grpc.aio")
    tls: dict[str, Any] = {"ssl": endpoint.secure}
    if endpoint.secure and settings.tls:
        tls["root_certificates"] = settings.tls.ca
        tls["certificate_chain"] = settings.tls.certificate
        tls["private_key"] = settings.tls.key
    return Dialect(
        open=lambda: triton.InferenceServerClient(
            endpoint.address, channel_args=_channel(endpoint, settings), **tls
        ),
        input=triton.InferInput,
        options={
            # HTTP/2 has no others than lower-case names.
            "headers": {name.lower(): value for name, value in settings.headers.items()},
            "client_timeout": settings.timeout,
        },
        as_json={"as_json": True},
        compression=_compression(settings, "compression_algorithm"),
    )


def _http(endpoint: Endpoint, settings: Settings) -> Dialect:
    triton = importlib.import_module("tritonclient.http.aio")
    aiohttp = importlib.import_module("aiohttp")
    # A context of None is aiohttp's default one: the usual authorities.
    tls = {"ssl_context": settings.tls.context()} if settings.tls else {}
    return Dialect(
        open=lambda: triton.InferenceServerClient(
            endpoint.address,
            conn_limit=0,  # a stream has its own limit
            conn_timeout=settings.timeout,
            ssl=endpoint.secure,
            **tls,
        ),
        input=triton.InferInput,
        options={"headers": settings.headers},
        as_json={},
        compression=_compression(
            settings, "request_compression_algorithm", "response_compression_algorithm"
        ),
        lost=(aiohttp.ClientError,),
    )


def _compression(settings: Settings, *keywords: str) -> dict[str, str]:
    return dict.fromkeys(keywords, settings.compression) if settings.compression else {}


def _channel(endpoint: Endpoint, settings: Settings) -> list[tuple[str, Any]]:
    """Choose gRPC's options.

    The names are those of https://grpc.github.io/grpc/core/group__grpc__arg__keys.html.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.min_reconnect_backoff_ms", int(settings.connect_timeout * 1000)),
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_MILLISECONDS),
        ("grpc.max_reconnect_backoff_ms", SLOWEST_RECONNECT_MILLISECONDS),
    ]
    if endpoint.is_this_machine:
        # gRPC would send even a loopback address through the proxy of the environment.
        return [*options, ("grpc.enable_http_proxy", 0)]
    # Of a name with several addresses, use all that answer.
    return [*options, ("grpc.service_config", ROUND_ROBIN)]
