"""Opens what holds the images: a folder, a tar, or parquet files."""

from __future__ import annotations

import logging
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from client import SUFFIXES
from scripts.evaluation.datasets.folder import PARQUET, FolderImages, list_folder
from scripts.evaluation.datasets.shards import check_parts, matching
from scripts.evaluation.datasets.tar import TarImages, is_tar, list_members, refuse_compressed
from scripts.evaluation.datasets.words import count
from scripts.evaluation.errors import EvaluationError

if TYPE_CHECKING:
    from scripts.evaluation.datasets.parquet import ParquetImages

LOGGER = logging.getLogger(__name__)
GIVE = "give a folder of images, a tar, or parquet files"


def open_images(path: Path) -> FolderImages | TarImages | ParquetImages:
    """Find the images in a folder, a tar, a parquet file, or the parquet files of a pattern.

    Raises:
        EvaluationError: it is none of these, has no images, or cannot be read.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        if shards := matching(path):
            return _in_parquet(shards, shards[0].parent, str(path))
        raise EvaluationError(f"{path} does not exist; {GIVE}") from error
    except OSError as error:
        raise EvaluationError(f"cannot read {path}: {error.strerror}; {GIVE}") from error
    if stat.S_ISDIR(mode):
        return _in_folder(path)
    if stat.S_ISREG(mode):
        return _in_file(path)
    raise EvaluationError(f"{path} is neither a folder nor a file; {GIVE}")


def _in_folder(folder: Path) -> FolderImages | ParquetImages:
    images, shards = list_folder(folder)
    if shards and not images.names:
        return _in_parquet(shards, folder, str(folder))
    if shards:
        LOGGER.warning(
            "%s: ignored %s beside the images; give them as --data '%s/*%s'",
            *(folder, count(len(shards), "parquet file"), shards[0].parent, PARQUET),
        )
    if not images.names:
        raise EvaluationError(
            f"{folder} has no images (JPEG, PNG, WebP, BMP or GIF, by the suffix); {GIVE}"
        )
    return images


def _in_file(file: Path) -> TarImages | ParquetImages:
    suffix = file.suffix.lower()
    if suffix == PARQUET:
        return _in_parquet([file], file.parent, str(file))
    if suffix in SUFFIXES:
        raise EvaluationError(f"{file} is one image; give the folder that has it")
    refuse_compressed(file)
    if suffix != ".tar" and not is_tar(file):
        raise EvaluationError(
            f"{file} is neither a tar nor parquet; {GIVE}, and a file with labels as --ground-truth"
        )
    images = list_members(file)
    if not images.names:
        raise EvaluationError(f"{file} has no images (JPEG, PNG, WebP, BMP or GIF, by the suffix)")
    return images


def _in_parquet(shards: Sequence[Path], folder: Path, origin: str) -> ParquetImages:
    from scripts.evaluation.datasets import parquet  # noqa: PLC0415 - slow to import

    check_parts(shards, origin=origin)
    return parquet.open_images(shards, folder)
