"""Collects the images that a layer can be trained and tested on."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scripts.adaptation.copies import SIDE, Thumbnails
from scripts.adaptation.errors import AdaptationError
from scripts.adaptation.features import Image, Rows
from scripts.evaluation.datasets.words import count, examples

Labels = npt.NDArray[np.int64]

LEAST = 2  # images of a class: one to train on, and one to test
NAMED = 3  # classes that a message names


@dataclass(frozen=True)
class Examples:
    """Images with labels.

    Attributes:
        features: FP32 [images, width].
        labels: the class of each image [images].
        names: the name of each image.
        thumbnails: UINT8 [images, pixels], by which `copies` compares images.
    """

    features: Rows
    labels: Labels
    names: tuple[str, ...]
    thumbnails: Thumbnails


@dataclass(frozen=True)
class Collection:
    """What the images of a data set are good for.

    Attributes:
        examples: the images that can be used, each once.
        unreadable: a line with the reason for each image that cannot be decoded.
        repeated: names of images that have the pixels of an earlier one of their class.
        contradictory: names of images that have the same pixels in several classes.
    """

    examples: Examples
    unreadable: tuple[str, ...]
    repeated: tuple[str, ...]
    contradictory: tuple[str, ...]

    @property
    def warnings(self) -> list[str]:
        """Say which images are left out, and why."""
        return [
            f"left out {count(len(names), 'image')} {reason}: {examples(names)}"
            for names, reason in (
                (self.unreadable, "that cannot be read"),
                (self.repeated, "with the content of another one of the class"),
                (self.contradictory, "with the content of one of another class"),
            )
            if names
        ]


def collect(images: Iterable[Image], classes: Sequence[str]) -> Collection:
    """Collect the images that can be used.

    Copies of an image would be in the training part and in the held-out part; each is used once. Of
    an image in several classes, no copy is used.

    Raises:
        AdaptationError: a class has fewer than two images that can be used.
    """
    found = list(images)
    classes_of: dict[str, set[int]] = defaultdict(set)
    for image in found:
        classes_of[image.sha256].add(image.label)
    usable: dict[str, Image] = {}
    unreadable, repeated, contradictory = [], [], []
    for image in found:
        if image.features is None:
            unreadable.append(f"{image.name} ({image.reason})")
        elif len(classes_of[image.sha256]) > 1:
            contradictory.append(image.name)
        elif image.sha256 in usable:
            repeated.append(image.name)
        else:
            usable[image.sha256] = image
    collection = Collection(
        _examples(list(usable.values())), tuple(unreadable), tuple(repeated), tuple(contradictory)
    )
    _check_classes(collection, classes)
    return collection


def _examples(images: list[Image]) -> Examples:
    rows = [image.features for image in images if image.features is not None]
    features = np.stack(rows) if rows else np.empty((0, 0), np.float32)
    thumbnails = [image.thumbnail for image in images if image.thumbnail is not None]
    return Examples(
        features,
        np.array([image.label for image in images], np.int64),
        tuple(image.name for image in images),
        np.stack(thumbnails) if thumbnails else np.empty((0, SIDE**2), np.uint8),
    )


def _check_classes(collection: Collection, classes: Sequence[str]) -> None:
    counts = np.bincount(collection.examples.labels, minlength=len(classes))
    few = [f"{classes[index]} ({counts[index]})" for index in np.flatnonzero(counts < LEAST)]
    if few:
        more = f" and {len(few) - NAMED} more" if len(few) > NAMED else ""
        reasons = "; ".join(["", *collection.warnings])
        raise AdaptationError(
            f"too few images that can be used: {', '.join(few[:NAMED])}{more}; each class needs "
            f"{LEAST} or more: add images, or remove its folder{reasons}"
        )
