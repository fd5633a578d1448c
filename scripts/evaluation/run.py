"""Sends a data set to a server, and the same images to a reference beside it."""

import math
import time
from collections import deque
from collections.abc import Collection, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from client import SAMPLE, Classification, Classifier, ClientError, ImageFile, InvalidImage, Source
from scripts.evaluation.datasets import Dataset, Sample
from scripts.evaluation.errors import EvaluationError
from scripts.evaluation.journal import Record
from scripts.evaluation.served import BEST, reason
from scripts.repository.steps.postprocess.ranking import best
from scripts.repository.steps.preprocess.errors import ImageError
from scripts.repository.tuning import cores

Array = npt.NDArray[np.float64]
NOT_NUMBERS = "the model computes NaN, not probabilities"


class Beside(Protocol):
    """What computes the probabilities of an image beside the server; threads share it."""

    def probabilities(self, data: bytes) -> Array:
        """Compute the probabilities [classes] of an image file.

        Raises:
            ImageError: the image cannot be decoded.
        """


@dataclass(frozen=True)
class Pending:
    """An image that was sent, and the probabilities that the reference computes meanwhile."""

    sample: Sample
    reference: Future[Array] | None


class Run:
    """Classifies the images of a data set with one model.

    `classifier` asks for the best five classes, or for all with a `reference`. At most a few times
    `concurrency` images are in memory.
    """

    def __init__(
        self,
        classifier: Classifier,
        dataset: Dataset,
        *,
        concurrency: int,
        reference: Beside | None = None,
    ) -> None:
        self._classifier = classifier
        self._dataset = dataset
        self._concurrency = concurrency
        self._reference = reference
        self._pending: deque[Pending] = deque()

    def records(self, skip: Collection[str] = ()) -> Generator[Record, None, None]:
        """Classify the images in order, without those named in `skip`.

        Raises:
            EvaluationError: the server no longer classifies, or the data set cannot be read.
        """
        before = time.perf_counter()
        with ExitStack() as stack:
            pool = None
            if self._reference:
                pool = ThreadPoolExecutor(cores(), "reference")
                stack.callback(pool.shutdown, cancel_futures=True)
            sources = self._sources(skip, pool)
            for result in self._classifier.stream(sources, concurrency=self._concurrency):
                pending = self._pending.popleft()
                settled = self._settle(result, _source(pending.sample))
                now = time.perf_counter()
                yield _record(pending, settled, now - before)
                before = now

    def _sources(self, skip: Collection[str], pool: ThreadPoolExecutor | None) -> Iterator[Source]:
        for sample in self._dataset.samples(skip):
            future = pool.submit(self._compute, sample) if pool else None
            self._pending.append(Pending(sample, future))
            yield _source(sample)

    def _compute(self, sample: Sample) -> Array:
        assert self._reference  # noqa: S101 - there is a pool
        return self._reference.probabilities(_bytes(sample))

    def _settle(self, result: Classification, source: Source) -> Classification:
        """Return the result; if it failed, find out if the image or the server is the reason.

        The server that refuses an image says so. After other errors it has to classify the
        sample photograph, and then gets the image once more, alone.

        Raises:
            EvaluationError: the server is the reason.
        """
        if result.error is None or isinstance(result.error, InvalidImage):
            return result
        try:
            if not self._classifier.is_live():
                raise result.error
            self._classifier.image(SAMPLE)
        except ClientError as error:
            raise EvaluationError(
                f"{reason(error)}; run the same command again to continue"
            ) from error
        return next(self._classifier.stream([source]))


def _source(sample: Sample) -> Source:
    if isinstance(sample.source, bytes):
        return ImageFile(sample.name, sample.source)
    return sample.source


def _bytes(sample: Sample) -> bytes:
    return sample.source.read_bytes() if isinstance(sample.source, Path) else sample.source


def _record(pending: Pending, result: Classification, seconds: float) -> Record:
    sample = pending.sample
    row, reference_error = _outcome(pending.reference)
    error = reason(result.error) if result.error else None
    if not all(math.isfinite(each.probability) for each in result.predictions):
        error = NOT_NUMBERS
    record = Record(
        sample.name,
        sample.label,
        seconds,
        error=error,
        reference=() if row is None else _best(row),
        # One reason is enough for an image that both refuse.
        reference_error=None if error else reference_error,
    )
    if error:
        return record
    kept = result.predictions[:BEST]
    return replace(
        record,
        classes=tuple(each.class_id for each in kept),
        probabilities=tuple(each.probability for each in kept),
        difference=None if row is None else _difference(result, row),
    )


def _outcome(future: Future[Array] | None) -> tuple[Array | None, str | None]:
    """Wait for the reference; return its probabilities, or why there are none."""
    if future is None:
        return None, None
    try:
        row = future.result()
        return (row, None) if np.isfinite(row).all() else (None, NOT_NUMBERS)
    except (ImageError, OSError) as error:
        return None, str(error)


def _best(row: Array) -> tuple[int, ...]:
    return tuple(best(row.astype(np.float32), min(BEST, len(row))).tolist())


def _difference(result: Classification, row: Array) -> float:
    """Return the largest difference between the probabilities of a class."""
    classes = [each.class_id for each in result.predictions]
    served = np.array([each.probability for each in result.predictions])
    return float(np.abs(served - row[classes]).max())
