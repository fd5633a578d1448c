"""Finds the parquet files that belong to one data set."""

from __future__ import annotations

import glob
import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from scripts.evaluation.datasets.folder import PARQUET
from scripts.evaluation.datasets.labelling import SPLITS
from scripts.evaluation.datasets.words import examples
from scripts.evaluation.errors import EvaluationError

LOGGER = logging.getLogger(__name__)
# `validation-00003-of-00014.parquet`, as Hugging Face's `datasets` writes.
SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")


def matching(pattern: Path) -> list[Path]:
    """List the parquet files that a pattern such as `data/test-*.parquet` matches, sorted."""
    if not glob.has_magic(str(pattern)):
        return []
    try:
        files = glob.glob(str(pattern))  # noqa: PTH207 - the pattern may be absolute
    except (OSError, ValueError):
        return []
    return sorted(file for file in map(Path, files) if file.suffix.lower() == PARQUET)


def check_parts(shards: Sequence[Path], *, origin: str) -> None:
    """Mention missing shards in a warning.

    Raises:
        EvaluationError: the files belong to several data sets, such as `train` and `test`.
    """
    parts: dict[Path, list[Path]] = defaultdict(list)
    for shard in shards:
        parts[shard.parent / _part(shard)].append(shard)
    if len(parts) > 1:
        names = sorted(str(part) for part in parts)
        raise EvaluationError(
            f"{origin} has the parquet files of {len(parts)} data sets, {examples(names)}; "
            f"give one, such as --data '{_pattern(parts[Path(names[0])][0])}'"
        )
    _say_missing(shards, origin)


def _part(shard: Path) -> str:
    """Return the part of the data set that a shard belongs to, empty if its name has none."""
    if found := SHARD.match(shard.stem):
        return found[1]
    word = re.match(r"[A-Za-z]*", shard.stem)
    return word[0] if word and word[0].lower() in SPLITS else ""


def _pattern(shard: Path) -> Path:
    """Return the pattern of a shard and those that belong to it."""
    return shard.parent / f"{_part(shard)}*{PARQUET}"


def _say_missing(shards: Sequence[Path], origin: str) -> None:
    numbers = [found for shard in shards if (found := SHARD.match(shard.stem))]
    total = max((int(found[3]) for found in numbers), default=0)
    if len(numbers) < total:
        LOGGER.warning(
            "%s has %d of %d shards: these are a part of the data", origin, len(numbers), total
        )
