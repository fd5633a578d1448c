"""Compares what a built classifier predicts with the user's own file, run as it is."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scripts.repository import libraries
from scripts.repository.errors import BuildError
from scripts.repository.graphs.runner import Runner
from scripts.repository.graphs.scores import probabilities, recognise
from scripts.repository.graphs.signature import read_signature
from scripts.repository.graphs.speed import single_threaded
from scripts.repository.graphs.tensors import tensor
from scripts.repository.manifest import Entry
from scripts.repository.sources import ClassifierSource
from scripts.repository.steps.postprocess.ranking import DEFAULT_TOP_K, best, softmax
from scripts.repository.steps.preprocess.imaging import ImageError, decode, load
from scripts.repository.steps.preprocess.recipe import Recipe

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
        BuildError: a graph cannot be loaded.
    """

    def __init__(self, source: ClassifierSource, entry: Entry, repository: Path) -> None:
        self._source, self._kind = source, entry.scores
        self._labels = (repository / entry.labels).read_text("utf-8").splitlines()
        self._served = single_threaded(repository / entry.parts["pixels"] / "1" / "model.onnx")
        self._model = source.load().model
        self._signature = read_signature(self._model, output=source.output, layout=source.layout)
        self._file = Runner(self._model, self._signature)
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
        recipe = self._source.recipe
        yield SERVED, self._serve(_pixels(data, recipe))
        exact = _pixels(data, replace(recipe, decoding="exact"))
        yield FILE, self._run(tensor(exact, recipe, self._signature))
        for library in self._libraries:
            yield library.name, self._run(library.tensor(decode(data), self._signature))

    def _serve(self, pixels: npt.NDArray[np.uint8]) -> Array:
        """Run the graph of the ensemble, and what follows it in the postprocessing step."""
        scores = self._served.run(None, {self._served.get_inputs()[0].name: pixels})[0][0]
        is_softmax = self._kind in {"logits", "log-probabilities"}
        row: Array = (softmax(scores) if is_softmax else scores).astype(np.float64)
        return row

    def _run(self, images: npt.NDArray[Any]) -> Array:
        """Run the original graph."""
        raw = self._file.run(images)
        scores = recognise(self._model, self._signature.output, raw, told=self._kind)
        row: Array = probabilities(raw, scores)[0]
        return row

    def _answer(self, way: str, row: Array) -> Answer:
        top = best(row.astype(np.float32), min(DEFAULT_TOP_K, len(row)))
        return Answer(
            way,
            tuple(top.tolist()),
            tuple(row[top].tolist()),
            tuple(self._labels[each] for each in top),
        )


def _pixels(data: bytes, recipe: Recipe) -> npt.NDArray[np.uint8]:
    pixels = np.asarray(load(data, recipe))
    return pixels.reshape(1, *recipe.crop, recipe.channels)
