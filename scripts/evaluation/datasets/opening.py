"""Opens a data set in whatever layout it is."""

from array import array
from collections.abc import Sequence
from pathlib import Path

from scripts.evaluation.datasets.classes import Classes
from scripts.evaluation.datasets.dataset import Dataset, Folders, Images, ImageSet
from scripts.evaluation.datasets.folder import list_images
from scripts.evaluation.datasets.labelling import SPLITS, by_file_name, by_folder, class_folders
from scripts.evaluation.datasets.words import examples
from scripts.evaluation.errors import EvaluationError

LAYOUTS = "one folder for each class, or file names that begin with WordNet ids"


def open_dataset(
    path: Path,
    classes: Sequence[str],
    *,
    ground_truth: Path | None = None,
    synsets: Path | None = None,
) -> Dataset:
    """Open labelled images.

    Args:
        path: a folder.
        classes: the classifier's labels in output order, such as `n02124075 Egyptian cat`.
        ground_truth: the file that has the labels.
        synsets: the file that says which class each number of `ground_truth` is.

    Raises:
        EvaluationError: the layout is not known, or labels do not fit the classifier.
    """
    if ground_truth or synsets:
        raise EvaluationError("files of labels are not read yet; use one folder for each class")
    images, origin, known = _images(path), str(path), Classes(tuple(classes))
    for label in (by_folder, by_file_name):
        if dataset := label(images, known, origin=origin):
            return dataset
    folders = {folder for folder in class_folders(images.names, known) if folder}
    if folders and folders <= SPLITS:
        raise EvaluationError(f"{path} has the folders {examples(sorted(folders))}; give one")
    if folders:
        known.match(folders, origin=origin)
    raise EvaluationError(f"{path} has images without labels; give {LAYOUTS}")


def open_unlabelled(path: Path) -> Dataset:
    """Open images without labels: a folder and its subfolders.

    Raises:
        EvaluationError: there are no images.
    """
    images = _images(path)
    return ImageSet(images, range(len(images.names)), None, "images without labels")


def open_folders(path: Path) -> Folders:
    """Open a folder that has a folder of images for each class; the folders' names are the classes.

    Raises:
        EvaluationError: there are fewer than two such folders.
    """
    images = _images(path)
    folders = class_folders(images.names)
    classes = tuple(sorted({folder for folder in folders if folder}))
    if len(classes) == 1 or not classes:
        raise EvaluationError(
            f"{path} has no two folders with images; give a folder that has one for each class"
        )
    if SPLITS.issuperset(name.lower() for name in classes):
        raise EvaluationError(f"{path} has the folders {examples(classes)}; give one of them")
    indices = {name: index for index, name in enumerate(classes)}
    positions, labels = array("q"), array("q")
    for position, folder in enumerate(folders):
        if folder:
            positions.append(position)
            labels.append(indices[folder])
    return Folders(images, positions, labels, "one folder for each class", classes)


def _images(path: Path) -> Images:
    if not path.is_dir():
        raise EvaluationError(f"{path} is not a folder; give a folder of images")
    images = list_images(path)
    if not images.names:
        raise EvaluationError(f"{path} has no images (JPEG, PNG, WebP, BMP or GIF)")
    return images
