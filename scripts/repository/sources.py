"""Sources of classifiers: the zoo, a random seed, or a user's own file."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from scripts.repository.catalog import ZooModel
from scripts.repository.errors import BuildError
from scripts.repository.fetch import Progress, fetch, verified
from scripts.repository.graphs import synthetic
from scripts.repository.graphs.prepare import DEFAULT_SIZE
from scripts.repository.graphs.signature import Signature, read_signature
from scripts.repository.steps.preprocess.recipe import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Channels,
    Recipe,
    square,
)

# The usual ratio for ImageNet: resize to 256, crop 224.
RESIZE_OVER_CROP = 256 / 224


@dataclass(frozen=True)
class Graph:
    """A classifier's original graph, and the sha256 of its file."""

    model: onnx.ModelProto
    sha256: str


@dataclass(frozen=True)
class ClassifierSource:
    """A classifier before it is prepared.

    Attributes:
        name: the classifier's name in the model repository.
        origin: its description in the manifest.
        load: reads or makes the graph, and may raise BuildError.
        recipe: how images are preprocessed for it.
        labels: one label for each class; None for the default of the number of classes.
    """

    name: str
    origin: str
    load: Callable[[], Graph]
    recipe: Recipe
    labels: tuple[str, ...] | None = None


def from_zoo(
    model: ZooModel, *, folder: Path | None = None, progress: Progress | None = None
) -> ClassifierSource:
    """Use a zoo file from `folder`, or download it.

    `progress` is called with the number of bytes downloaded and their total.
    """

    def load() -> Graph:
        return read(verified(model, folder) if folder else fetch(model, progress=progress))

    return ClassifierSource(model.name, f"zoo {model.zoo_file}.onnx", load, model.recipe)


def from_seed(model: ZooModel) -> ClassifierSource:
    """Make a graph with the zoo file's structure and random weights from a fixed seed."""

    def load() -> Graph:
        graph = synthetic.build(model)
        data = graph.SerializeToString(deterministic=True)
        return Graph(graph, hashlib.sha256(data).hexdigest())

    return ClassifierSource(model.name, f"synthetic {model.zoo_file}.onnx", load, model.recipe)


def from_file(
    file: Path,
    name: str,
    *,
    labels: tuple[str, ...] | None = None,
    resize: int | None = None,
    crop: int | None = None,
    mean: Channels = IMAGENET_MEAN,
    std: Channels = IMAGENET_STD,
) -> ClassifierSource:
    """Use a user's own classifier.

    By default `crop` is the graph's input size and `resize` is `crop` * 256 / 224, both in pixels.

    Raises:
        BuildError: the file is not a classifier of square images, or the recipe is invalid.
    """
    graph = read(file)
    try:
        size = _own_size(read_signature(graph.model))
        crop = size if crop is None else crop
        resize = round(crop * RESIZE_OVER_CROP) if resize is None else resize
        recipe = square(resize, crop, mean=mean, std=std)
    except (BuildError, ValueError) as error:
        raise BuildError(f"{file}: {error}") from error
    return ClassifierSource(name, f"file {file.name}", lambda: graph, recipe, labels)


def read(file: Path) -> Graph:
    """Read an ONNX file, with its external data if it has any.

    Raises:
        BuildError: the file is not an ONNX model.
    """
    data = file.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
        onnx.load_external_data_for_model(model, str(file.parent))
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise BuildError(f"{file} is not an ONNX file: {error}") from error
    if not model.graph.node:
        raise BuildError(f"{file} is not an ONNX file: it contains no graph")
    return Graph(model, hashlib.sha256(data).hexdigest())


def read_labels(file: Path) -> tuple[str, ...]:
    """Read one label a line.

    Raises:
        BuildError: the file is not UTF-8 text, or has an empty line.
    """
    try:
        labels = tuple(file.read_text("utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise BuildError(f"{file} is not UTF-8 text; write one label a line") from error
    if not all(label.strip() for label in labels):
        raise BuildError(f"{file} has an empty line; write one label a line")
    return labels


def _own_size(signature: Signature) -> int:
    if signature.height != signature.width:
        raise BuildError(
            f"the graph takes {signature.height} x {signature.width}; recipes crop squares"
        )
    return signature.height or DEFAULT_SIZE
