"""Adapts a classifier to the classes of a data set, and tests it on images that are held out."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from scripts.adaptation import copies, training
from scripts.adaptation.errors import AdaptationError
from scripts.adaptation.examples import Examples, Labels, collect
from scripts.adaptation.features import backbone, compute
from scripts.adaptation.last_layer import with_layer
from scripts.evaluation.confusion import Confusion
from scripts.evaluation.datasets import Folders
from scripts.evaluation.datasets.words import count
from scripts.evaluation.datasets.words import examples as some
from scripts.evaluation.statistics import Share
from scripts.repository.metadata import self_description
from scripts.repository.sources import ClassifierSource

logger = logging.getLogger(__name__)

# Called with `images` or `folds` (of the cross-validation), how many are done, and their total.
Progress = Callable[[str, int, int], None]

# 65,536 images with 2,048 features each. Features take 4 bytes, and training six times as much: as
# they are, scaled, and four fifths of that in each of five folds.
MAX_FEATURES = 1 << 27
WIDE = 0.2  # of an interval of the accuracy
IMBALANCED = 10  # times as many images in one class as in another


@dataclass(frozen=True)
class Settings:
    """How to test and train: the share of each class that is held out, the seed, and the cores."""

    held_out: float
    seed: int
    cores: int


@dataclass(frozen=True)
class Trial:
    """What a layer that was trained on a part of the images predicts for the others.

    Attributes:
        labels: the class of each held-out image [images].
        predictions: the class that gets the highest score [images].
        classes: number of classes.
        strength: the one that was chosen from `training.STRENGTHS`.
    """

    labels: Labels
    predictions: Labels
    classes: int
    strength: float

    @property
    def accuracy(self) -> Share:
        """How many predictions are right."""
        return Share(int((self.labels == self.predictions).sum()), len(self.labels))

    @property
    def accuracies(self) -> list[Share]:
        """How many predictions are right for the images of each class."""
        right = self.labels == self.predictions
        return [
            Share(int(right[self.labels == label].sum()), int((self.labels == label).sum()))
            for label in range(self.classes)
        ]

    @property
    def most_frequent(self) -> Share:
        """How many predictions would be right if all were the most frequent class."""
        return Share(int(np.bincount(self.labels).max()), len(self.labels))

    @property
    def confusion(self) -> Confusion:
        """Which classes are confused."""
        return Confusion.of(self.labels, self.predictions, self.classes)


@dataclass(frozen=True)
class Adaptation:
    """A classifier for new classes.

    Attributes:
        model: the graph, with labels and recipe in its metadata.
        examples: all images that can be used; the layer of `model` is trained on them.
        trial: of a layer that was trained in the same way without the held-out images.
    """

    model: ModelProto
    examples: Examples
    trial: Trial


def adapt(
    source: ClassifierSource, images: Folders, settings: Settings, progress: Progress
) -> Adaptation:
    """Train a new last layer for the classes of a data set, and test it.

    The same seed gives the same graph on CPUs of the same kind, whatever their number.

    Raises:
        AdaptationError: the graph has no last layer that can be replaced, or there are too few or
            too many images.
        BuildError: the graph cannot be run.
        EvaluationError: the data set cannot be read any more.
    """
    base = backbone(source)
    if len(images) * base.width > MAX_FEATURES:
        raise AdaptationError(
            f"{len(images):,} images with {base.width:,} features are too many to hold in memory; "
            f"give at most {MAX_FEATURES // base.width:,} images"
        )
    computed = compute(
        base,
        images.samples(),
        settings.cores,
        lambda done: progress("images", done, len(images)),
    )
    collection = collect(computed, images.classes)
    for warning in collection.warnings:
        logger.warning("%s", warning)
    examples = collection.examples
    trial = run_trial(examples, images.classes, settings, progress)
    layer = training.train(examples.features, examples.labels, trial.strength)
    model = with_layer(base.graph, layer.weights, layer.bias)
    facts: dict[str, str | int | float] = {
        "base": source.origin,
        "base_sha256": base.sha256,
        "data_sha256": images.sha256,
        "images": len(examples.labels),
        "held_out": trial.accuracy.total,
        "held_out_right": trial.accuracy.count,
        "inverse_penalty": trial.strength,
        "seed": settings.seed,
    }
    self_description.write(model, images.classes, base.recipe, adapted=facts)
    return Adaptation(model, examples, trial)


def run_trial(
    examples: Examples, classes: Sequence[str], settings: Settings, progress: Progress
) -> Trial:
    """Train a layer on a part of the images, and test it on the others.

    The strength of the penalty is chosen on the former, too.
    """
    is_held_out = training.hold_out(examples.labels, settings.held_out, settings.seed)
    features, labels = examples.features[~is_held_out], examples.labels[~is_held_out]
    strength = training.choose(
        features,
        labels,
        seed=settings.seed,
        cores=settings.cores,
        progress=lambda done, folds: progress("folds", done, folds),
    )
    layer = training.train(features, labels, strength)
    predictions = layer.logits(examples.features[is_held_out]).argmax(axis=1)
    result = Trial(examples.labels[is_held_out], predictions, len(classes), strength)
    found = doubts(result, np.bincount(examples.labels), classes)
    for warning in [*found, *_near_copies(examples, is_held_out)]:
        logger.warning("%s", warning)
    return result


def _near_copies(examples: Examples, is_held_out: npt.NDArray[np.bool_]) -> list[str]:
    """Say which held-out images are almost equal to images that were trained on."""
    tested, trained = np.flatnonzero(is_held_out), np.flatnonzero(~is_held_out)
    nearest = copies.nearest(examples.thumbnails[tested], examples.thumbnails[trained])
    pairs = [
        f"{examples.names[one]} (as {examples.names[trained[other]]})"
        for one, other in zip(tested, nearest, strict=True)
        if other >= 0
    ]
    if not pairs:
        return []
    return [
        f"{count(len(pairs), 'held-out image is', 'held-out images are')} almost equal to images "
        "that were trained on, so that the accuracy of others is lower; keep one of such images: "
        f"{some(pairs)}"
    ]


def doubts(result: Trial, counts: Labels, classes: Sequence[str]) -> list[str]:
    """Say why the accuracy may not be what it seems; `counts` are the images of each class."""
    found = []
    accuracy, frequent = result.accuracy, result.most_frequent
    if accuracy.high - accuracy.low > WIDE:
        found.append(
            f"{count(accuracy.total, 'held-out image')}: the interval of the accuracy is wide; "
            "add images"
        )
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] > IMBALANCED * counts[least]:
        found.append(
            f"{classes[most]} has {counts[most]} images, {classes[least]} {counts[least]}: the "
            "classifier expects such proportions; see the accuracy of each class"
        )
    if accuracy.low <= frequent.value:
        found.append(
            f"the accuracy is not clearly above {frequent.value:.1%}, that of always answering "
            f"{classes[int(np.bincount(result.labels).argmax())]}"
        )
    return found
