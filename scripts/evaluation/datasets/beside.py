"""Finds the files with labels that lie beside the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

DEVKIT = "ILSVRC2012_devkit_t12"
# With WordNet ids, with ILSVRC's numbers, and with class indices.
GROUND_TRUTH = (
    "LOC_val_solution.csv",
    "imagenet_2012_validation_synset_labels.txt",
    "ILSVRC2012_validation_ground_truth.txt",
    "val.txt",
    "metadata.csv",
    "labels.csv",
    "labels.tsv",
)
# What ILSVRC's numbers mean, and what class indices mean.
ILSVRC_SYNSETS = ("meta.mat", "map_clsloc.txt")
SYNSET_LISTS = ("synsets.txt", "synset_words.txt", "LOC_synset_mapping.txt", "synset.txt")
# Kaggle's archive has ILSVRC/Data/CLS-LOC/val beside its files.
KAGGLE = ("ILSVRC", "Data", "CLS-LOC")


def find_ground_truth(path: Path) -> Path | None:
    """Find the file with the labels of the images in a folder or archive."""
    return _find(path, GROUND_TRUTH)


def find_packed_devkit(path: Path) -> Path | None:
    """Find the archive of ILSVRC's devkit, which has the labels of the validation set."""
    return _find(path, [f"{DEVKIT}.tar.gz"])


def find_synsets(path: Path, ground_truth: Path, names: Sequence[str]) -> Path | None:
    """Find a list of classes beside the ground truth, or else beside the images."""
    return _find(ground_truth, names) or _find(path, names)


def _find(path: Path, names: Sequence[str]) -> Path | None:
    """Return the first of the names that is there, in the nearest folder that has one."""
    for folder in _places(path):
        for name in names:
            if _is_file(folder / name):
                return folder / name
    return None


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # its folder may not be searched
        return False


def _places(path: Path) -> Iterator[Path]:
    """Return the folder, the one around it, their devkits, and the top of Kaggle's archive."""
    path = path.absolute()
    folders = [path, path.parent] if path.is_dir() else [path.parent, path.parent.parent]
    for folder in folders:
        yield from (folder, folder / DEVKIT / "data", folder / "data")
    if path.parent.parts[-len(KAGGLE) :] == KAGGLE:
        yield path.parents[len(KAGGLE)]
