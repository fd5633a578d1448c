"""A thin layer over tritonclient: one request, one way to fail, on either protocol."""

import http.client
import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException

from client._endpoint import Endpoint
from client._exceptions import (
    ClientError,
    InvalidRequest,
    ModelNotFound,
    ServerFailed,
    ServerUnavailable,
)

# What gRPC and HTTP call the same thing.
ERRORS: Mapping[str, type[ClientError]] = {
    "StatusCode.INVALID_ARGUMENT": InvalidRequest,
    "400": InvalidRequest,
    "StatusCode.NOT_FOUND": ModelNotFound,
    "404": ModelNotFound,
    "StatusCode.UNAVAILABLE": ServerUnavailable,
    "StatusCode.DEADLINE_EXCEEDED": ServerUnavailable,
    "499": ServerUnavailable,
    "503": ServerUnavailable,
}


class Transport:
    """A connection to one server; `timeout` bounds each request, in seconds."""

    def __init__(self, endpoint: Endpoint, *, timeout: float) -> None:
        self._endpoint = endpoint
        # Imported here, so that one protocol does not pay for the other.
        self._triton = importlib.import_module(f"tritonclient.{endpoint.protocol}")
        self._timeouts: dict[str, Any] = {}
        if endpoint.protocol == "grpc":
            self._client = self._triton.InferenceServerClient(
                endpoint.address, channel_args=_grpc_options(endpoint)
            )
            self._timeouts = {"client_timeout": timeout}
        else:
            self._client = self._triton.InferenceServerClient(
                endpoint.address, connection_timeout=timeout, network_timeout=timeout
            )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def infer(self, model: str, images: list[bytes], parameters: dict[str, int]) -> Any:  # noqa: ANN401 - tritonclient has no types
        """Send encoded images as one batch and return tritonclient's result.

        Raises:
            ClientError: of the kind that the server's answer, or its silence, calls for.
        """
        batch = np.array(images, dtype=np.object_).reshape(-1, 1)
        tensor = self._triton.InferInput("IMAGE", list(batch.shape), "BYTES")
        tensor.set_data_from_numpy(batch)
        with self._errors(model):
            return self._client.infer(model, [tensor], parameters=parameters, **self._timeouts)

    def ready_ensembles(self) -> list[str]:
        """Name the ensembles that the server has ready, in alphabetical order."""
        as_json = {} if self._endpoint.protocol == "http" else {"as_json": True, **self._timeouts}
        with self._errors(None):
            index = self._client.get_model_repository_index(**as_json)
            models = index.get("models", []) if isinstance(index, dict) else index
            ready = sorted(model["name"] for model in models if model.get("state") == "READY")
            metadata = {name: self._client.get_model_metadata(name, **as_json) for name in ready}
        return [name for name, about in metadata.items() if about["platform"] == "ensemble"]

    @contextmanager
    def _errors(self, model: str | None) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            message = str(error.message())
            kind = ERRORS.get(error.status(), ServerFailed)
            # A model that is known but not loaded is UNAVAILABLE to gRPC and a bad request to HTTP.
            kind = ModelNotFound if message.startswith("Request for unknown model") else kind
            raise kind(self._say(kind, message), model=model) from error
        # What tritonclient's HTTP lets through from below: refused, unknown host, no HTTP at all.
        except (OSError, http.client.HTTPException) as error:
            raise ServerUnavailable(
                self._say(ServerUnavailable, str(error)), model=model
            ) from error

    def _say(self, kind: type[ClientError], message: str) -> str:
        if kind is not ServerUnavailable:
            return message
        return f"no server at {self._endpoint.protocol}://{self._endpoint.address}: {message}"


def _grpc_options(endpoint: Endpoint) -> list[tuple[str, int]]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    # gRPC would send even a loopback address through the proxy of the environment.
    return [*options, ("grpc.enable_http_proxy", 0)] if endpoint.is_this_machine else options
