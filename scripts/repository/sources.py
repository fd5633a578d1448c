"""Where classifiers come from: the zoo, a seed, or a user's own file."""

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
from scripts.repository.graphs.prepare import DEFAULT_SIZE, Signature, read_signature
from scripts.repository.steps.preprocess.recipe import IMAGENET_MEAN, IMAGENET_STD, RGB, Recipe

# The usual margin around the crop, that of ImageNet's 224 in 256.
RESIZE_OVER_CROP = 256 / 224


@dataclass(frozen=True)
class Graph:
    """A classifier's graph as it came, and the sha256 of its file."""

    model: onnx.ModelProto
    sha256: str


@dataclass(frozen=True)
class Source:
    """A classifier before it is prepared.

    `origin` is what the manifest says of it; `labels` is None where the number of classes decides.
    """

    name: str
    origin: str
    load: Callable[[], Graph]
    recipe: Recipe
    labels: tuple[str, ...] | None = None


def from_zoo(
    model: ZooModel, *, folder: Path | None = None, progress: Progress | None = None
) -> Source:
    """Take a zoo file, out of `folder` or else from the network."""

    def load() -> Graph:
        return read(verified(model, folder) if folder else fetch(model, progress=progress))

    return Source(model.name, f"zoo {model.zoo_file}.onnx", load, model.recipe)


def from_seed(model: ZooModel) -> Source:
    """Make a graph of the zoo file's structure with seeded weights."""

    def load() -> Graph:
        graph = synthetic.build(model)
        data = graph.SerializeToString(deterministic=True)
        return Graph(graph, hashlib.sha256(data).hexdigest())

    return Source(model.name, f"synthetic {model.zoo_file}.onnx", load, model.recipe)


def from_file(
    file: Path,
    name: str,
    *,
    labels: tuple[str, ...] | None = None,
    resize: int | None = None,
    crop: int | None = None,
    mean: RGB = IMAGENET_MEAN,
    std: RGB = IMAGENET_STD,
) -> Source:
    """Take a user's own classifier; what is not said of its recipe follows from its input size.

    Raises:
        BuildError: the file is no classifier of square images, or the recipe cannot work.
    """
    graph = read(file)
    try:
        size = _own_size(read_signature(graph.model))
        crop = size if crop is None else crop
        resize = round(crop * RESIZE_OVER_CROP) if resize is None else resize
        recipe = Recipe(resize, crop, mean, std)
    except (BuildError, ValueError) as error:
        raise BuildError(f"{file}: {error}") from error
    return Source(name, f"file {file.name}", lambda: graph, recipe, labels)


def read(file: Path) -> Graph:
    """Read an ONNX file, with its external data if it has any.

    Raises:
        BuildError: it is no ONNX file.
    """
    data = file.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
        onnx.load_external_data_for_model(model, str(file.parent))
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise BuildError(f"{file} is not an ONNX file: {error}") from error
    if not model.graph.node:
        raise BuildError(f"{file} is not an ONNX file: it holds no graph")
    return Graph(model, hashlib.sha256(data).hexdigest())


def read_labels(file: Path) -> tuple[str, ...]:
    """Read one label a line.

    Raises:
        BuildError: it is no text, or has an empty line.
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
