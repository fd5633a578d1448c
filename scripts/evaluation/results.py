"""The figures of an evaluation, computed from its journals one record at a time."""

import heapq
import logging
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from scripts.evaluation import journal
from scripts.evaluation.confusion import Confusion
from scripts.evaluation.errors import EvaluationError
from scripts.evaluation.journal import Record
from scripts.evaluation.served import BEST
from scripts.evaluation.statistics import Share, calibration_error, mcnemar

logger = logging.getLogger(__name__)

FARTHEST = 10
REFERENCE = "the reference"


@dataclass(frozen=True)
class Failure:
    """An image without an answer, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Accuracy:
    """How often the label is the best class, and among the best five.

    An image that failed counts as wrong. `top5` is None if there are no more than five classes.
    `calibration_error` is over the images with an answer, and None without any.
    """

    top1: Share
    top5: Share | None
    calibration_error: float | None
    confusion: Confusion


@dataclass(frozen=True)
class Result:
    """What became of the images with one model; `accuracy` is None without labels.

    `images_per_second` counts the images of all runs that wrote the journal.
    """

    model: str
    images: int
    images_per_second: float
    failures: tuple[Failure, ...]
    accuracy: Accuracy | None


@dataclass(frozen=True)
class Agreement:
    """How a model's answers agree with those of the reference, or of another model.

    `top1` is the share of the images with the same best class, `top5` of those with the same five
    best classes in any order, and `order` in the same order, among the images that at least one has
    an answer for; where only one has, they differ. `top5` is None if there are no more than five
    classes. `gain` is the accuracy of `model` minus that of `other`, from -1 to 1, and `p` that of
    McNemar's test for it; an image that failed counts as wrong. Both are None without labels.
    `largest` and `mean` are over the largest difference between the probabilities of a class in
    each image, and `farthest` has the images with the largest ones; only the reference has all
    probabilities to compare.
    """

    model: str
    other: str
    top1: Share
    top5: Share | None
    order: Share
    gain: float | None = None
    p: float | None = None
    largest: float | None = None
    mean: float | None = None
    farthest: tuple[tuple[str, float], ...] = ()


def result(model: str, file: Path, classes: int) -> Result:
    """Compute a model's result from its journal.

    Args:
        model: the name of the model.
        file: the journal.
        classes: the number of classes.

    Raises:
        EvaluationError: the journal is damaged.
    """
    labels, best, confidences = array("l"), array("l"), array("d")
    failures: list[Failure] = []
    count, in_five, seconds = 0, 0, 0.0
    is_labelled = True
    for record in journal.records(file):
        count += 1
        seconds += record.seconds
        failures += _failures(record)
        if record.label is None:
            is_labelled = False
        elif record.classes:
            labels.append(record.label)
            best.append(record.classes[0])
            confidences.append(record.probabilities[0])
            in_five += record.label in record.classes
    accuracy = None
    if is_labelled:
        are_right = np.equal(labels, best)
        accuracy = Accuracy(
            Share(int(are_right.sum()), count),
            Share(in_five, count) if classes > BEST else None,
            calibration_error(confidences, are_right) if labels else None,
            Confusion.of(labels, best, classes),
        )
    return Result(model, count, count / seconds if seconds else 0.0, tuple(failures), accuracy)


def with_reference(model: str, file: Path, classes: int) -> Agreement | None:
    """Compare a model's answers with those of the reference; None if no image has one.

    Raises:
        EvaluationError: the journal is damaged.
    """
    pairs = (
        (record, record.classes, record.reference, record.difference)
        for record in journal.records(file)
    )
    return _agreement(model, REFERENCE, pairs, classes)


def with_baseline(
    model: str, file: Path, baseline: str, baseline_file: Path, classes: int
) -> Agreement | None:
    """Compare a model's answers with those of another one; None if no image has one.

    Raises:
        EvaluationError: a journal is damaged, or they do not have the same images in order.
    """
    return _agreement(model, baseline, _paired(file, baseline_file), classes)


Pair = tuple[Record, Sequence[int], Sequence[int], float | None]


def _paired(file: Path, baseline_file: Path) -> Iterator[Pair]:
    """Pair the records of two journals, which are in the order of the data set."""
    both = zip_longest(journal.records(file), journal.records(baseline_file))
    for record, other in both:
        if not record or not other or (record.name, record.label) != (other.name, other.label):
            raise EvaluationError(
                f"{file} and {baseline_file} do not have the same images in the same order; "
                "begin both anew with --restart"
            )
        yield record, record.classes, other.classes, None


class _Counts:
    """Counts in how many images two answers agree, and which of them is right."""

    def __init__(self) -> None:
        self.images = self.compared = self.top1 = self.top5 = self.order = 0
        self.only_ours = self.only_theirs = 0
        self.is_labelled = True

    def add(self, record: Record, ours: Sequence[int], theirs: Sequence[int]) -> None:
        self.images += 1
        if record.label is None:
            self.is_labelled = False
        else:
            is_ours_right, is_theirs_right = (record.label in each[:1] for each in (ours, theirs))
            self.only_ours += is_ours_right and not is_theirs_right
            self.only_theirs += is_theirs_right and not is_ours_right
        if ours or theirs:
            self.compared += 1
            self.top1 += ours[:1] == theirs[:1]
            self.top5 += set(ours) == set(theirs)
            self.order += ours == theirs


class _Differences:
    """Keeps the largest differences between probabilities, and the mean of all."""

    def __init__(self) -> None:
        self.count, self.total = 0, 0.0
        self._largest: list[tuple[float, int, str]] = []

    def add(self, name: str, difference: float) -> None:
        self.count += 1
        self.total += difference
        heapq.heappush(self._largest, (difference, -self.count, name))
        if len(self._largest) > FARTHEST:
            heapq.heappop(self._largest)

    @property
    def farthest(self) -> tuple[tuple[str, float], ...]:
        ranked = sorted(self._largest, reverse=True)
        return tuple((name, difference) for difference, _, name in ranked)


def _agreement(model: str, other: str, pairs: Iterable[Pair], classes: int) -> Agreement | None:
    counts, differences = _Counts(), _Differences()
    for record, ours, theirs, difference in pairs:
        counts.add(record, ours, theirs)
        if difference is not None:
            differences.add(record.name, difference)
    if not counts.compared:
        logger.warning("%s: no image could be compared with %s", model, other)
        return None
    farthest, is_labelled = differences.farthest, counts.is_labelled
    return Agreement(
        model,
        other,
        top1=Share(counts.top1, counts.compared),
        top5=Share(counts.top5, counts.compared) if classes > BEST else None,
        order=Share(counts.order, counts.compared),
        gain=(counts.only_ours - counts.only_theirs) / counts.images if is_labelled else None,
        p=mcnemar(counts.only_ours, counts.only_theirs) if is_labelled else None,
        largest=farthest[0][1] if farthest else None,
        mean=differences.total / differences.count if farthest else None,
        farthest=farthest,
    )


def _failures(record: Record) -> Iterator[Failure]:
    if record.error:
        yield Failure(record.name, record.error)
    if record.reference_error:
        yield Failure(record.name, f"{REFERENCE}: {record.reference_error}")
