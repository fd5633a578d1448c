"""Takes the labels of images from the names of their folders or files."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Sequence

from scripts.evaluation.datasets.classes import NUMBER, WORDNET_ID, Classes
from scripts.evaluation.datasets.dataset import Images, ImageSet
from scripts.evaluation.datasets.words import count, examples
from scripts.evaluation.errors import EvaluationError

LOGGER = logging.getLogger(__name__)
# Folders that hold parts of a data set rather than a class.
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


def label_images(
    images: Images, labels: Sequence[int | None], *, layout: str, origin: str
) -> ImageSet:
    """Keep the images that have a label; those without are counted in a warning.

    Raises:
        EvaluationError: no image has a label.
    """
    positions, kept, missing = array("q"), array("q"), []
    for position, label in enumerate(labels):
        if label is None:
            missing.append(images.names[position])
        else:
            positions.append(position)
            kept.append(label)
    if not positions:
        raise EvaluationError(f"{origin}: no image has a label")
    if missing:
        LOGGER.warning(
            "%s: left out %s without a label: %s",
            *(origin, count(len(missing), "image"), examples(missing)),
        )
    return ImageSet(images, positions, kept, layout)


def by_folder(
    images: Images, classes: Classes, *, numbers: bool = False, origin: str
) -> ImageSet | None:
    """Label images by their folders' names; None if no name is a class.

    `numbers` is whether names that are all numbers are taken for class indices.

    Raises:
        EvaluationError: only some of the names are classes.
    """
    folders = class_folders(images.names, classes)
    names = {folder for folder in folders if folder is not None}
    are_indices = numbers and all(map(NUMBER.fullmatch, names))
    if not names or not (are_indices or any(map(classes.candidates, names))):
        return None
    matched = classes.match(names, origin=origin)
    labels = [None if folder is None else matched[folder] for folder in folders]
    return label_images(images, labels, layout="one folder for each class", origin=origin)


def by_file_name(images: Images, classes: Classes, *, origin: str) -> ImageSet | None:
    """Label images by the WordNet ids at the beginning of their names; None if none is a class.

    Raises:
        EvaluationError: only some of the ids are classes.
    """
    ids = [WORDNET_ID.match(name.rpartition("/")[2]) for name in images.names]
    names = {found[0] for found in ids if found}
    if not any(map(classes.candidates, names)):
        return None
    matched = classes.match(names, origin=origin)
    labels = [matched[found[0]] if found else None for found in ids]
    return label_images(images, labels, layout="file names begin with WordNet ids", origin=origin)


def class_folders(names: Sequence[str], classes: Classes | None = None) -> list[str | None]:
    """Return the folder of each path that is its class; None if it is in no folder.

    That is the outermost folder, except one that holds all other folders and is no class itself.
    """
    folders = [name.split("/")[:-1] for name in names]
    depth = 0
    while (outer := _common(folders, depth)) is not None:
        if classes and classes.candidates(outer):
            break
        depth += 1
    return [(path[depth] or None) if len(path) > depth else None for path in folders]


def _common(folders: Sequence[Sequence[str]], depth: int) -> str | None:
    """Return the folder at a depth if all paths have it, and folders in it."""
    if not folders or any(len(path) <= depth + 1 for path in folders):
        return None
    outer = folders[0][depth]
    return outer if all(path[depth] == outer for path in folders) else None
