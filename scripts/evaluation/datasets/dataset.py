"""What a data set is: names, class indices, and images that are read when they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Sample:
    """One image.

    `name` is unique and stable within the data set: a relative path, the member of a tar, or a
    shard and its row. `label` is a class index in the classifier's output order, None if the data
    set has no labels. `source` is an image file, or its bytes if it is part of a larger file.
    """

    name: str
    label: int | None
    source: Path | bytes


class Dataset(Protocol):
    """Images in a fixed order, with or without labels."""

    @property
    def layout(self) -> str:
        """Where the labels come from, in one line for reports."""

    @property
    def sha256(self) -> str:
        """The SHA-256 over all names and labels, in order; it does not depend on the pixels."""

    @property
    def is_labelled(self) -> bool:
        """Whether every sample has a label."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def samples(self, skip: Collection[str] = ()) -> Iterator[Sample]:
        """Read the samples one at a time, always in the same order, without those in `skip`.

        Raises:
            EvaluationError: a file that has many images cannot be read any more.
        """

    def limited(self, count: int) -> Dataset:
        """Return `count` of the samples, evenly spaced; all if there are no more."""


class Images(Protocol):
    """Where the images are: a folder, a tar, or parquet files."""

    @property
    def names(self) -> Sequence[str]:
        """The name of each image, unique and in a fixed order."""

    def read(self, positions: Sequence[int]) -> Iterator[Path | bytes]:
        """Read the images at these positions of `names`, which increase."""


@dataclass(frozen=True)
class ImageSet:
    """The images at some positions of `images`, in order, and their labels.

    `labels` has one class index for each of `positions`, or is None if the data has no labels.
    """

    images: Images
    positions: Sequence[int]
    labels: Sequence[int] | None
    layout: str

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 over all names and labels, in order."""
        digest = hashlib.sha256()
        names = self.images.names
        for index, position in enumerate(self.positions):
            label = self.labels[index] if self.labels is not None else ""
            digest.update(f"{label}\t{names[position]}\0".encode())
        return digest.hexdigest()

    @property
    def is_labelled(self) -> bool:
        """Whether every sample has a label."""
        return self.labels is not None

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.positions)

    def samples(self, skip: Collection[str] = ()) -> Iterator[Sample]:
        """Read the samples one at a time, always in the same order, without those in `skip`.

        Raises:
            EvaluationError: a file that has many images cannot be read any more.
        """
        names, skipped = self.images.names, frozenset(skip)
        kept = [
            index
            for index, position in enumerate(self.positions)
            if not skipped or names[position] not in skipped
        ]
        sources = self.images.read([self.positions[index] for index in kept])
        for index, source in zip(kept, sources, strict=True):
            label = self.labels[index] if self.labels is not None else None
            yield Sample(names[self.positions[index]], label, source)

    def limited(self, count: int) -> ImageSet:
        """Return `count` of the samples, evenly spaced; all if there are no more."""
        total = len(self)
        kept = [index * total // count for index in range(count)] if count < total else range(total)
        labels = None if self.labels is None else [self.labels[index] for index in kept]
        return replace(self, positions=[self.positions[index] for index in kept], labels=labels)


@dataclass(frozen=True)
class Folders(ImageSet):
    """Images in one folder for each class; a label is an index into `classes`, which is sorted."""

    classes: tuple[str, ...]
