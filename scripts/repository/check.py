"""Compares what a built classifier predicts with the user's own file, run as it is."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scripts.repository import libraries
from scripts.repository.errors import BuildError
from scripts.repository.graphs import engines
from scripts.repository.libraries import Library
from scripts.repository.manifest import Entry
from scripts.repository.original_file import OriginalFile, pixels
from scripts.repository.sources import ClassifierSource
from scripts.repository.steps.postprocess.ranking import DEFAULT_TOP_K, best, softmax
from scripts.repository.steps.preprocess.imaging import ImageError, decode

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
        self._served = engines.load(entry.backend, file, precision=entry.precision)
        self._file = OriginalFile(
            source.load().model,
            source.recipe,
            output=source.output,
            layout=source.layout,
            scores=source.scores or entry.scores,
        )
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
        yield SERVED, self._serve(pixels(data, self._recipe))
        yield FILE, self._file.classify(data)
        for library in self._libraries:
            if (row := self._run_library(library, data)) is not None:
                yield library.name, row

    def _run_library(self, library: Library, data: bytes) -> Array | None:
        """Run the file on what a library makes of an image, if the graph takes that."""
        try:
            row: Array = self._file.run(library.tensor(decode(data), self._file.signature))[0]
        except BuildError as error:
            logger.warning("%s cannot be compared with: %s", library.name, error)
            return None
        return row

    def _serve(self, images: npt.NDArray[np.uint8]) -> Array:
        """Run the graph of the ensemble, and what follows it in the postprocessing step."""
        scores = self._served(images)[0]
        row = softmax(scores) if self._file.are_logits else scores
        return np.asarray(row, np.float64)

    def _answer(self, way: str, row: Array) -> Answer:
        top = best(row.astype(np.float32), min(DEFAULT_TOP_K, len(row)))
        return Answer(
            way,
            tuple(top.tolist()),
            tuple(row[top].tolist()),
            tuple(self._labels[each] for each in top),
        )
