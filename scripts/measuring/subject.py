"""What of a model repository is measured: one classifier, its parts, and what to send to it."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.http import InferenceServerClient, InferInput

from scripts.embedded import ServerError
from scripts.measuring.perf_analyzer import Input
from scripts.measuring.wrk import Request
from scripts.repository import manifest
from scripts.repository.errors import BuildError
from scripts.repository.steps.preprocess.recipe import Recipe

GRAPH = "1/model.onnx"
REQUEST_ID = "id-00000000"  # what post.lua counts up


@dataclass(frozen=True)
class Subject:
    """A classifier, with the names of its ensemble's steps in their order.

    `graph` is the file that the ensemble runs, on uint8 [N, crop, crop, 3]. `tensor` is the input
    of `onnx_name`, the model that takes FP32 [N, 3, crop, crop].
    """

    name: str
    onnx_name: str
    steps: tuple[str, ...]
    recipe: Recipe
    graph: Path
    tensor: str

    @property
    def preprocess_name(self) -> str:
        """The step that decodes and resizes."""
        return self.steps[0]

    def image_request(self, image: bytes) -> Request:
        """Ask for the classes of an encoded image, with nothing but its bytes."""
        return Request(self.name, image, 0)

    def told_apart(self, image: bytes) -> Request:
        """Ask the same with an id that comes back."""
        tensor = InferInput("IMAGE", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[image]], np.object_))
        return _request(self.name, tensor, REQUEST_ID)

    def tensor_request(self) -> Request:
        """Ask for the logits of random numbers."""
        values = self._values()
        tensor = InferInput(self.tensor, list(values.shape), "FP32")
        tensor.set_data_from_numpy(values)
        return _request(self.onnx_name, tensor)

    def tensor_input(self) -> Input:
        """The same numbers, for perf_analyzer."""
        values = self._values()
        return Input(self.tensor, values.tobytes(), values.shape[1:])

    def _values(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        shape = (1, 3, self.recipe.crop, self.recipe.crop)
        return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def read(repository: Path, name: str) -> Subject:
    """Find a classifier in a model repository.

    Raises:
        BuildError: there is no such classifier.
    """
    entries = manifest.read(repository)
    if name not in entries:
        known = ", ".join(sorted(entries)) or "nothing"
        raise BuildError(
            f"{repository} has no classifier {name}, but {known}; choose with --models"
        )
    parts = entries[name].parts
    config = _config(repository / parts["ensemble"])
    steps = tuple(step.model_name for step in config.ensemble_scheduling.step)
    return Subject(
        name=name,
        onnx_name=parts["onnx"],
        steps=steps,
        recipe=Recipe.from_json(json.dumps(entries[name].recipe)),
        graph=repository / parts["pixels"] / GRAPH,
        tensor=_config(repository / parts["onnx"]).input[0].name,
    )


def _config(folder: Path) -> pb.ModelConfig:
    text = (folder / "config.pbtxt").read_text("utf-8")
    return text_format.Parse(text, pb.ModelConfig())


def _request(model: str, tensor: InferInput, request_id: str = "") -> Request:
    body, length = InferenceServerClient.generate_request_body([tensor], request_id=request_id)
    if length is None:
        raise ServerError(f"{model}: the request has no binary data")
    return Request(model, body, length)
