"""The classifier under measurement and the requests that are sent to it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import triton_to_np_dtype

from scripts.measuring.wrk import InferRequest
from scripts.repository import manifest
from scripts.repository.errors import BuildError
from scripts.repository.steps.preprocess.recipe import Recipe


@dataclass(frozen=True)
class Build:
    """The engine that serves a classifier on a CPU, and the precision."""

    engine: str
    precision: str

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}"


@dataclass(frozen=True)
class Subject:
    """A classifier: the names of its ensemble and of its graph, and what they take.

    `graph` is the file that the ensemble runs, on uint8 [N, crop, crop, 3]. `tensor` is the input
    of `onnx_name`, without the batch.
    """

    name: str
    onnx_name: str
    recipe: Recipe
    graph: Path
    tensor: pb.ModelInput
    build: Build

    def image_request(self, image: bytes) -> InferRequest:
        """Return a request that consists of an image file only."""
        return InferRequest(self.name, image, 0)

    def numbered_request(self, image: bytes) -> InferRequest:
        """Return the same with a JSON header and a request id."""
        tensor = InferInput("IMAGE", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[image]], np.object_))
        return _request(self.name, tensor, "id-00000000")  # post.lua counts it up

    def pixels_request(self, batch: int) -> InferRequest:
        """Return a request for the scores of black pixels, to the graph that the ensemble runs."""
        shape = [batch, *self.recipe.crop, self.recipe.channels]
        tensor = InferInput("PIXELS", shape, "UINT8")
        tensor.set_data_from_numpy(np.zeros(shape, np.uint8))
        return _request(self.graph.parents[1].name, tensor)

    def tensor_request(self, batch: int = 1) -> InferRequest:
        """Return a request for the logits of random numbers."""
        sizes = iter(self.recipe.crop)
        shape = (batch, *(next(sizes) if size < 0 else size for size in self.tensor.dims))
        data_type = pb.DataType.Name(self.tensor.data_type).removeprefix("TYPE_")
        values = np.random.default_rng(0).integers(0, 2, shape)
        tensor = InferInput(self.tensor.name, list(shape), data_type)
        tensor.set_data_from_numpy(values.astype(triton_to_np_dtype(data_type)))
        return _request(self.onnx_name, tensor)


def read(repository: Path, name: str) -> Subject:
    """Find a classifier in a model repository.

    Raises:
        BuildError: the repository has no such classifier.
    """
    entries = manifest.read(repository)
    if name not in entries:
        known = ", ".join(sorted(entries)) or "no classifier"
        raise BuildError(f"{repository} has {known}, not {name}; choose with --models")
    entry = entries[name]
    onnx_name = entry.parts["onnx"]
    text = (repository / onnx_name / "config.pbtxt").read_text("utf-8")
    config = text_format.Parse(text, pb.ModelConfig())
    tensor = config.input[0]
    if not config.max_batch_size:
        del tensor.dims[0]  # the batch
    graph = repository / entry.parts["pixels"] / "1" / "model.onnx"
    build = Build(entry.backend, entry.precision)
    return Subject(name, onnx_name, entry.to_recipe(), graph, tensor, build)


def _request(model: str, tensor: InferInput, request_id: str = "") -> InferRequest:
    body, length = InferenceServerClient.generate_request_body([tensor], request_id=request_id)
    return InferRequest(model, body, int(length))
