"""Opens a data set in whatever layout it is."""

from __future__ import annotations

import logging
import shlex
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.evaluation.datasets.assignment import by_ground_truth
from scripts.evaluation.datasets.beside import (
    GROUND_TRUTH,
    ILSVRC_SYNSETS,
    SYNSET_LISTS,
    find_ground_truth,
    find_packed_devkit,
    find_synsets,
)
from scripts.evaluation.datasets.classes import Classes
from scripts.evaluation.datasets.containers import open_images
from scripts.evaluation.datasets.dataset import Dataset, Folders, Images, ImageSet
from scripts.evaluation.datasets.folder import FolderImages
from scripts.evaluation.datasets.ground_truth import InOrder, read_ground_truth
from scripts.evaluation.datasets.labelling import (
    SPLITS,
    by_file_name,
    by_folder,
    class_folders,
    label_images,
)
from scripts.evaluation.datasets.synsets import read_synsets
from scripts.evaluation.datasets.tar import TarImages
from scripts.evaluation.datasets.words import count, examples, printable
from scripts.evaluation.errors import EvaluationError

if TYPE_CHECKING:
    from scripts.evaluation.datasets.parquet import ParquetImages

LOGGER = logging.getLogger(__name__)
LAYOUTS = (
    "one folder for each class; file names that begin with WordNet ids; a file with the labels "
    f"({', '.join(GROUND_TRUTH)}, or any other with --ground-truth); a tar of these; parquet"
)


def open_dataset(
    path: Path,
    classes: Sequence[str],
    *,
    ground_truth: Path | None = None,
    synsets: Path | None = None,
) -> Dataset:
    """Open labelled images.

    Args:
        path: a folder, a tar, a parquet file, or a pattern of parquet files.
        classes: the classifier's labels in output order, such as `n02124075 Egyptian cat`.
        ground_truth: the file that has the labels; it is searched beside the images.
        synsets: the file that says which class each number is; it is searched likewise.

    Raises:
        EvaluationError: the layout is not known, or labels do not fit the classifier.
    """
    known, origin = Classes(tuple(classes)), printable(str(path))
    images = open_images(path)
    if not isinstance(images, FolderImages | TarImages):
        return _label_parquet(images, known, ground_truth, synsets, origin)
    if ground_truth is None and synsets is None:
        for label in (by_folder, by_file_name):
            if dataset := label(images, known, origin=origin):
                return dataset
    ground_truth = ground_truth or find_ground_truth(path)
    if ground_truth is None:
        if dataset := by_folder(images, known, numbers=True, origin=origin):
            return dataset
        if packed := find_packed_devkit(path):
            raise EvaluationError(
                f"{origin}: the labels are in {packed}; run: "
                f"tar -xzf {shlex.quote(str(packed))} -C {shlex.quote(str(packed.parent))}"
            )
        raise _no_labels(images, known, origin)
    truth = read_ground_truth(ground_truth)
    if synsets and not truth.are_numbers:
        raise EvaluationError(f"{ground_truth} has no numbers as labels; leave out --synsets")
    if synsets is None and truth.are_numbers:
        names = ILSVRC_SYNSETS if isinstance(truth, InOrder) else SYNSET_LISTS
        synsets = find_synsets(path, ground_truth, names)
    listed = read_synsets(synsets) if synsets else None
    return by_ground_truth(images, truth, known, listed, origin=origin)


def open_unlabelled(path: Path) -> Dataset:
    """Open images without labels: a folder and its subfolders, a tar, or parquet files.

    Raises:
        EvaluationError: there are no images.
    """
    images = open_images(path)
    return ImageSet(images, range(len(images.names)), None, "images without labels")


def open_folders(path: Path) -> Folders:
    """Open a folder that has a folder of images for each class; the folders' names are the classes.

    Raises:
        EvaluationError: there are fewer than two such folders.
    """
    images = open_images(path)
    folders = class_folders(images.names)
    classes = tuple(sorted({folder for folder in folders if folder}))
    splits = [name for name in classes if name.lower() in SPLITS]
    if len(classes) <= 1 or len(splits) > 1:
        raise EvaluationError(
            f"{path} has images in {examples(splits or classes) or 'no folder'}; "
            "give a folder that has a folder for each class"
        )
    _say_merged(images.names, folders, path)
    indices = {name: index for index, name in enumerate(classes)}
    labels = [None if folder is None else indices[folder] for folder in folders]
    labelled = label_images(images, labels, layout="one folder for each class", origin=str(path))
    return Folders(images, labelled.positions, labelled.labels, labelled.layout, classes)


def _say_merged(names: Sequence[str], classes: Sequence[str | None], path: Path) -> None:
    """Mention classes whose images are in several folders, which may be classes themselves."""
    folders: dict[str, set[str]] = defaultdict(set)
    for name, label in zip(names, classes, strict=True):
        if label is not None:
            folders[label].add(name.rpartition("/")[0])
    merged = {label: sorted(several) for label, several in folders.items() if len(several) > 1}
    if merged:
        label, several = min(merged.items())
        LOGGER.warning(
            "%s: images of %s are in several folders, such as %s, which are taken for %r",
            *(path, count(len(merged), "class", "classes"), examples(several), label),
        )


def _label_parquet(
    images: ParquetImages,
    classes: Classes,
    ground_truth: Path | None,
    synsets: Path | None,
    origin: str,
) -> ImageSet:
    from scripts.evaluation.datasets.parquet import label_rows  # noqa: PLC0415 - slow to import

    if ground_truth:
        raise EvaluationError(f"{origin} has labels in it; leave out --ground-truth {ground_truth}")
    listed = read_synsets(synsets) if synsets else None
    return label_rows(images, classes, listed, origin=origin)


def _no_labels(images: Images, classes: Classes, origin: str) -> EvaluationError:
    folders = sorted({folder for folder in class_folders(images.names, classes) if folder})
    if folders and {name.lower() for name in folders} <= SPLITS:
        return EvaluationError(f"{origin} has the folders {examples(folders)}; give one of them")
    if folders:
        return EvaluationError(
            f"{origin}: none of its folders, {examples(folders)}, is a class of the classifier "
            f"(such as {classes.labels[0]!r}), and no file with labels was found; give {LAYOUTS}"
        )
    return EvaluationError(f"{origin}: no labels were found for its images; give {LAYOUTS}")
