"""Computes the features of images: what the last layer of a classifier takes."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from scripts.adaptation import copies, last_layer
from scripts.adaptation.errors import AdaptationError
from scripts.adaptation.parallel import in_order
from scripts.evaluation.datasets import Sample
from scripts.repository import onnx_file
from scripts.repository.graphs import engines, samples
from scripts.repository.graphs.pixels import with_pixels
from scripts.repository.graphs.prepare import prepare
from scripts.repository.graphs.runner import loadable
from scripts.repository.graphs.signature import Signature, read_signature
from scripts.repository.graphs.zip_map import without_zip_maps
from scripts.repository.original_file import pixels
from scripts.repository.sources import ClassifierSource
from scripts.repository.steps.preprocess.imaging import ImageError
from scripts.repository.steps.preprocess.recipe import Recipe, written

Rows = npt.NDArray[np.float32]
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Backbone:
    """The part of a classifier before its last layer.

    Attributes:
        graph: takes the image as the file does, and gives features, FP32 [N, width].
        run: computes features of pixels, UINT8 [N, height, width, channels], on one thread.
        recipe: how an image becomes pixels, with exact decoding.
        width: number of features.
        sha256: of the classifier's file.
    """

    graph: ModelProto
    run: engines.Run
    recipe: Recipe
    width: int
    sha256: str


def backbone(source: ClassifierSource) -> Backbone:
    """Cut a classifier before its last layer.

    The features are computed by the nodes that the server runs, after the same conversions, and do
    not depend on the number of cores.

    Raises:
        AdaptationError: the graph has no last layer that can be replaced.
        BuildError: the graph cannot be run with the recipe.
    """
    original = source.load()
    model = last_layer.plain(without_zip_maps(original.model))
    signature = read_signature(model, output=source.output, layout=source.layout)
    layer = last_layer.find(model, signature.output)
    graph = last_layer.backbone(model, layer)
    recipe = replace(source.recipe, decoding="exact")
    prepared = prepare(graph, size=recipe.crop, layout=source.layout, scores="logits")
    _check_recipe(recipe, prepared.signature)
    with loadable(onnx_file.write(with_pixels(prepared, recipe))) as file:
        run = engines.load("onnxruntime", file, threads=1)
    width = run(samples.pixels(1, recipe.crop, recipe.channels)).shape[1]
    if layer.width not in {None, width}:
        raise AdaptationError(
            f"the last layer takes {layer.width} features at several positions, {width} in all; "
            f"{last_layer.ADVICE}"
        )
    return Backbone(graph, run, recipe, width, original.sha256)


def _check_recipe(recipe: Recipe, signature: Signature) -> None:
    size = signature.height or recipe.crop[0], signature.width or recipe.crop[1]
    if size != recipe.crop:
        raise AdaptationError(
            f"the graph takes {written(size)} pixels, not a crop of {written(recipe.crop)}; give "
            f"--crop {written(size)}"
        )
    if recipe.channels != signature.channels:
        raise AdaptationError(
            f"the graph takes {signature.channels} channels, not the colour {recipe.colour}; give "
            "another with --colour"
        )


@dataclass(frozen=True)
class Image:
    """An image of the data set: its features, or the reason why it has none.

    `sha256` is that of the pixels that the network takes: a copy with other metadata, or in another
    format without loss, has the same. `thumbnail` is that of `copies`.
    """

    name: str
    label: int
    sha256: str = ""
    features: Rows | None = None
    thumbnail: copies.Thumbnails | None = None
    reason: str = ""


def compute(
    base: Backbone, images: Iterable[Sample], cores: int, progress: Progress | None = None
) -> Iterator[Image]:
    """Compute the features of images in their order, on some cores.

    `progress` is called with the number of images done so far.

    Raises:
        AdaptationError: an image has no label.
    """
    results = in_order(lambda sample: _image(base, sample), images, cores)
    for done, image in enumerate(results, 1):
        yield image
        if progress:
            progress(done)


def _image(base: Backbone, sample: Sample) -> Image:
    if sample.label is None:
        raise AdaptationError(f"{sample.name} has no label; give one folder for each class")
    try:
        data = sample.source if isinstance(sample.source, bytes) else sample.source.read_bytes()
        picture = pixels(data, base.recipe)
    except (ImageError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Image(sample.name, sample.label, reason=reason)
    return Image(
        sample.name,
        sample.label,
        hashlib.sha256(picture.tobytes()).hexdigest(),
        base.run(picture)[0],
        copies.thumbnail(picture[0]),
    )
