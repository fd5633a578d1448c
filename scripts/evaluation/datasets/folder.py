"""The image files in a folder and its subfolders."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from client import SUFFIXES
from scripts.evaluation.datasets.words import count, examples, printable
from scripts.evaluation.errors import EvaluationError

LOGGER = logging.getLogger(__name__)
# Files of these kinds lie beside images in many data sets; other files are mentioned.
NOT_IMAGES = frozenset(
    {".csv", ".db", ".html", ".ini", ".json", ".jsonl", ".mat", ".md", ".py"}
    | {".tsv", ".txt", ".xml", ".yaml", ".yml"}
)
PARQUET = ".parquet"
# macOS adds this folder to zip archives; hidden files and folders begin with a dot.
MACOS = "__MACOSX"
# Device and inode of each folder around a folder.
Ancestors = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class FolderImages:
    """The images of a folder: paths relative to it, sorted."""

    folder: Path
    paths: tuple[str, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The paths, in which bytes that are not UTF-8 are escaped."""
        return tuple(map(printable, self.paths))

    def read(self, positions: Sequence[int]) -> Iterator[Path]:
        """Return the image files at these positions."""
        return (self.folder / self.paths[position] for position in positions)


def list_folder(folder: Path) -> tuple[FolderImages, list[Path]]:
    """Find the images and the parquet files in a folder and its subfolders, through links, too.

    Hidden files and folders are ignored. Other files that are no images, what is neither a file nor
    a folder, and empty folders are counted in warnings.

    Raises:
        EvaluationError: a folder cannot be listed.
    """
    found = _Found()
    pending: list[tuple[str, Ancestors]] = [("", ())]
    while pending:
        pending += _search(folder, *pending.pop(), found)
    for paths, noun, reason in (
        (found.others, "file", "not JPEG, PNG, WebP, BMP or GIF by the suffix"),
        (found.special, "file", "neither a file nor a folder, or a link to nothing"),
        (found.loops, "link", "to a folder around it"),
        (found.empty, "folder", "empty"),
    ):
        if paths:
            LOGGER.warning(
                "%s: ignored %s (%s): %s",
                *(folder, count(len(paths), noun), reason, examples(sorted(paths))),
            )
    parquet = [folder / path for path in sorted(found.parquet)]
    return FolderImages(folder, tuple(sorted(found.images))), parquet


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or was added by macOS."""
    return (name.startswith(".") and name not in {".", ".."}) or name == MACOS


@dataclass(frozen=True)
class _Found:
    """Paths relative to the folder that is searched."""

    images: list[str] = field(default_factory=list)
    parquet: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


def _search(root: Path, path: str, around: Ancestors, found: _Found) -> list[tuple[str, Ancestors]]:
    """List one folder; return the folders in it."""
    folder = root / path
    try:
        status = folder.stat()
        with os.scandir(folder) as listing:
            entries = [entry for entry in listing if not is_hidden(entry.name)]
    except OSError as error:
        raise EvaluationError(
            f"cannot list {printable(str(folder))}: {error.strerror}; "
            "give a folder that you may read"
        ) from error
    identity = (status.st_dev, status.st_ino)
    if identity in around:
        found.loops.append(printable(path))
        return []
    if not entries and path:
        found.empty.append(printable(path))
    folders = []
    for entry in entries:
        inner = f"{path}/{entry.name}" if path else entry.name
        if _is(entry.is_dir):
            folders.append((inner, (*around, identity)))
        else:
            _sort_file(entry, inner, found)
    return folders


def _sort_file(entry: os.DirEntry[str], path: str, found: _Found) -> None:
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - pathlib is slow for 50,000
    if suffix in NOT_IMAGES:
        return
    if suffix not in SUFFIXES and suffix != PARQUET:
        found.others.append(printable(path))
    elif _is(entry.is_file):
        (found.parquet if suffix == PARQUET else found.images).append(path)
    else:
        found.special.append(printable(path))


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself
        return False
