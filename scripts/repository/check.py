"""Compares what a built classifier predicts with the user's own file, run as it is."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scripts.repository import libraries
from scripts.repository.errors import BuildError
from scripts.repository.graphs import engines
from scripts.repository.graphs.original import run_original
from scripts.repository.graphs.runner import Runner
from scripts.repository.graphs.scores import probabilities, recognise
from scripts.repository.graphs.signature import Signature, read_signature
from scripts.repository.graphs.tensors import tensor
from scripts.repository.graphs.zip_map import without_zip_maps
from scripts.repository.libraries import Library
from scripts.repository.manifest import Entry
from scripts.repository.sources import ClassifierSource
from scripts.repository.steps.postprocess.ranking import DEFAULT_TOP_K, best, softmax
from scripts.repository.steps.preprocess.imaging import ImageError, decode, load
from scripts.repository.steps.preprocess.recipe import Recipe, written

logger = logging.getLogger(__name__)

Array = npt.NDArray[np.float64]
SERVED, FILE = "served", "the file, exact decoding"


@dataclass(frozen=True)
class Answer:
    """The best classes of an image, with probabilities and labels, by one way of computing them."""

    way: str
    classes: tuple[int, ...]
    probabilities: tuple[float, ...]
    labels: tuple[str, ...]

    def row(self, rank: int) -> str:
        """Write the class at a rank, from 0."""
        return f"{self.probabilities[rank]:.4f} {self.labels[rank]}"


@dataclass(frozen=True)
class Comparison:
    """The answers for one image, that of the built classifier first.

    `difference` is the largest one between the probabilities of a class.
    """

    image: Path
    answers: tuple[Answer, ...]
    difference: float


class Check:
    """A built classifier, and the file that it was built from.

    Raises:
        BuildError: the file cannot be run at the size of the recipe.
    """

    def __init__(self, source: ClassifierSource, entry: Entry, repository: Path) -> None:
        self._recipe = source.recipe
        self._labels = (repository / entry.labels).read_text("utf-8").splitlines()
        file = repository / entry.parts["pixels"] / "1" / "model.onnx"
        self._served = engines.load(entry.engine, file, precision=entry.precision)
        model = without_zip_maps(source.load().model)
        signature = read_signature(model, output=source.output, layout=source.layout)
        _check_size(signature, source.recipe)
        original = run_original(model, signature, source.recipe.crop)
        self._signature = original.signature
        self._file = Runner(original.model, original.signature)
        told = source.scores or entry.scores
        self._scores = recognise(original.model, signature.output, original.scores, told=told)
        self._libraries = libraries.installed(source)

    def compare(self, image: Path) -> Comparison:
        """Classify an image in each way.

        Raises:
            BuildError: the image cannot be decoded.
            OSError: the file cannot be read.
        """
        try:
            ways = dict(self._ways(image.read_bytes()))
        except ImageError as error:
            raise BuildError(f"--check: {image}: {error}") from error
        rows = np.stack(list(ways.values()))
        return Comparison(
            image,
            tuple(self._answer(way, row) for way, row in ways.items()),
            float(np.ptp(rows, axis=0).max()),
        )

    def _ways(self, data: bytes) -> Iterator[tuple[str, Array]]:
        yield SERVED, self._serve(_pixels(data, self._recipe))
        exact = _pixels(data, replace(self._recipe, decoding="exact"))
        yield FILE, self._run(tensor(exact, self._recipe, self._signature))
        for library in self._libraries:
            if (row := self._run_library(library, data)) is not None:
                yield library.name, row

    def _run_library(self, library: Library, data: bytes) -> Array | None:
        """Run the file on what a library makes of an image, if the graph takes that."""
        try:
            return self._run(library.tensor(decode(data), self._signature))
        except BuildError as error:
            logger.warning("%s cannot be compared with: %s", library.name, error)
            return None

    def _serve(self, pixels: npt.NDArray[np.uint8]) -> Array:
        """Run the graph of the ensemble, and what follows it in the postprocessing step."""
        scores = self._served(pixels)[0]
        row = softmax(scores) if self._scores.are_logits else scores
        return np.asarray(row, np.float64)

    def _run(self, images: npt.NDArray[Any]) -> Array:
        """Run the original graph."""
        row: Array = probabilities(self._file.run(images), self._scores)[0]
        return row

    def _answer(self, way: str, row: Array) -> Answer:
        top = best(row.astype(np.float32), min(DEFAULT_TOP_K, len(row)))
        return Answer(
            way,
            tuple(top.tolist()),
            tuple(row[top].tolist()),
            tuple(self._labels[each] for each in top),
        )


def _check_size(signature: Signature, recipe: Recipe) -> None:
    height, width = recipe.crop
    size = (signature.height or height, signature.width or width)
    if size != recipe.crop:
        raise BuildError(
            f"--check: the file itself takes {written(size)} pixels, not {written(recipe.crop)}, "
            "so there is nothing to compare with"
        )


def _pixels(data: bytes, recipe: Recipe) -> npt.NDArray[np.uint8]:
    pixels = np.asarray(load(data, recipe))
    return pixels.reshape(1, *recipe.crop, recipe.channels)
