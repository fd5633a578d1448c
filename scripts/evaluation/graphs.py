"""Sends tensors to the graph of a served classifier, NAME_onnx, over gRPC or HTTP."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import tritonclient.grpc
import tritonclient.http
from geventhttpclient.response import HTTPParseError
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from client import Classifier, ClientError
from scripts.evaluation.errors import EvaluationError
from scripts.evaluation.tensors import DataSet

Array = npt.NDArray[Any]

PROTOCOLS = ("grpc", "http")
SUFFIX = "_onnx"  # of the model with the graph's original tensors
TIMEOUT_SECONDS = 60
TIMEOUTS = {"grpc": {"client_timeout": TIMEOUT_SECONDS}, "http": {}}
CHANNEL = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
AS_JSON = {"grpc": {"as_json": True}, "http": {}}


@dataclass(frozen=True)
class Graph:
    """A served graph, as the server describes it.

    `name` is the model's, NAME_onnx; `input` the name, Triton's data type and the number of
    dimensions, the batch included, of its only input; `outputs` are in the graph's order.
    """

    name: str
    engine: str
    is_bf16: bool
    input: tuple[str, str, int]
    outputs: tuple[str, ...]


class GraphClient:
    """A connection to a server, at HOST:PORT, over one of `PROTOCOLS`. Proxies are not used.

    `served` are the names of the server's classifiers, in alphabetical order.

    Raises:
        EvaluationError: no server responds there.
    """

    def __init__(self, protocol: str, address: str) -> None:
        self.protocol = protocol
        self._url = f"{protocol}://{address}"
        try:
            with Classifier(self._url, retries=0) as classifier:
                self.served = [model.name for model in classifier.models()]
        except (ClientError, ValueError) as error:
            raise EvaluationError(f"--{protocol}: {error}") from error
        self._client, self._library = _connect(protocol, address)
        self._timeout, self._as_json = TIMEOUTS[protocol], AS_JSON[protocol]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def describe(self, name: str) -> Graph:
        """Ask the server for the graph of a classifier.

        Raises:
            EvaluationError: the server does not have it.
        """
        model = f"{name}{SUFFIX}"
        if name not in self.served:
            served = ", ".join(self.served) or "no classifier"
            raise EvaluationError(f"{self._url} does not serve {name}; it has {served}")
        with _translated(f"{self._url}, {model}"):
            metadata = self._client.get_model_metadata(model, **self._as_json)
            config = self._client.get_model_config(model, **self._as_json)
        config = config.get("config", config)
        tensor, *more = metadata["inputs"]
        if more:
            raise EvaluationError(f"{model} has {len(more) + 1} inputs; a classifier has 1")
        return Graph(
            model,
            config["backend"],
            "HINT_BF16" in config.get("parameters", {}),
            (tensor["name"], tensor["datatype"], len(tensor["shape"])),
            tuple(output["name"] for output in metadata["outputs"]),
        )

    def run(self, graph: Graph, data_set: DataSet) -> tuple[list[Array], float]:
        """Send the input of a data set.

        Returns:
            The outputs in the order of the data set's, and the time of the request in seconds.

        Raises:
            EvaluationError: the graph does not take the input or has other outputs, or the server
                fails.
        """
        names = _outputs(graph, data_set)
        tensor = self._library.InferInput(*_input(graph, data_set))
        tensor.set_data_from_numpy(data_set.inputs[0].array)
        wanted = [self._library.InferRequestedOutput(name) for name in names]
        with _translated(f"{graph.name}, {data_set.name}, {self.protocol}"):
            start = time.perf_counter()
            result = self._client.infer(graph.name, [tensor], outputs=wanted, **self._timeout)
            seconds = time.perf_counter() - start
        return [result.as_numpy(name) for name in names], seconds


def _connect(protocol: str, address: str) -> tuple[Any, Any]:
    """Return tritonclient's client and its module."""
    if protocol == "grpc":
        grpc: Any = tritonclient.grpc
        return grpc.InferenceServerClient(address, channel_args=CHANNEL), grpc
    http: Any = tritonclient.http
    return http.InferenceServerClient(address, network_timeout=TIMEOUT_SECONDS), http


@contextmanager
def _translated(subject: str) -> Iterator[None]:
    try:
        yield
    except InferenceServerException as error:
        raise EvaluationError(f"{subject}: {_first_line(error)}") from error
    except (OSError, HTTPParseError) as error:
        raise EvaluationError(f"{subject}: the connection failed: {error}") from error


def _first_line(error: InferenceServerException) -> str:
    return str(error.message()).partition("\n")[0]


def _input(graph: Graph, data_set: DataSet) -> tuple[str, list[int], str]:
    """Return the name, the shape and the data type of the input to send."""
    name, data_type, dimensions = graph.input
    if len(data_set.inputs) != 1:
        raise EvaluationError(
            f"{data_set.name} has {len(data_set.inputs)} inputs; {graph.name} takes 1"
        )
    array = data_set.inputs[0].array
    sent = np_to_triton_dtype(array.dtype)
    if (sent, array.ndim) != (data_type, dimensions):
        raise EvaluationError(
            f"the input of {data_set.name} is {sent} with {array.ndim} dimensions; {graph.name} "
            f"takes {data_type} with {dimensions}: is the archive that of another model?"
        )
    return name, list(array.shape), data_type


def _outputs(graph: Graph, data_set: DataSet) -> list[str]:
    """Name the outputs of a data set, by the names in the files or else by their order."""
    names = [tensor.name for tensor in data_set.outputs]
    if set(names) <= set(graph.outputs) and len(set(names)) == len(names):
        return names
    if len(names) != len(graph.outputs):
        raise EvaluationError(
            f"{data_set.name} has {len(names)} outputs; {graph.name} has {len(graph.outputs)}"
        )
    return list(graph.outputs)
