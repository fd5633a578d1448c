"""The images and labels in parquet files, as those of the Hugging Face hub."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scripts.evaluation.datasets.classes import NUMBER, Classes
from scripts.evaluation.datasets.dataset import ImageSet
from scripts.evaluation.datasets.labelling import label_images
from scripts.evaluation.datasets.synsets import Synsets
from scripts.evaluation.datasets.words import examples, first_line, printable
from scripts.evaluation.errors import EvaluationError

# The key of the schema's metadata under which `datasets` describes the columns.
DESCRIPTION = b"huggingface"
IMAGE_COLUMNS = ("image", "img", "picture", "photo", "jpg", "jpeg", "png")
LABEL_COLUMNS = ("label", "labels", "class", "cls", "target", "category", "label_name")
NO_LABEL = -1  # `datasets` writes it for images whose labels are not published
ROWS = 16  # read at a time
BUFFER = 1 << 16  # bytes read at a time

IMAGE_KINDS = (pa.types.is_binary, pa.types.is_large_binary)
LABEL_KINDS = (
    *(pa.types.is_integer, pa.types.is_string, pa.types.is_large_string),
    pa.types.is_dictionary,  # of pandas' categories
)


@dataclass(frozen=True)
class ParquetImages:
    """The images in the rows of parquet files: `shard.parquet:ROW`, in the order of the rows.

    Reading takes the memory of one page of the image column, not of a row group. Common writers put
    at most 1,024 rows into a page, or 100 as `datasets` does.
    """

    shards: tuple[Path, ...]
    rows: tuple[int, ...]
    column: str
    names: tuple[str, ...]

    def read(self, positions: Sequence[int]) -> Iterator[bytes]:
        """Read the images of these rows; row groups that have none of them are not read.

        An image without bytes is empty.

        Raises:
            EvaluationError: a file cannot be read or is damaged.
        """
        first = 0
        for shard, rows in zip(self.shards, self.rows, strict=True):
            if wanted := _between(positions, first, first + rows):
                with _opened(shard) as file:
                    if file.metadata.num_rows != rows:
                        raise EvaluationError(f"{shard} has changed; start again")
                    yield from _read_rows(file, self.column, wanted)
            first += rows


def open_images(shards: Sequence[Path], folder: Path) -> ParquetImages:
    """Open the images of parquet files, whose names are relative to a folder.

    Raises:
        EvaluationError: a file cannot be read or has no column of images.
    """
    names: list[str] = []
    rows = []
    columns = set()
    for shard in shards:
        with _opened(shard) as file:
            columns.add(_image_column(file.schema_arrow, shard))
            rows.append(file.metadata.num_rows)
        name = printable(str(shard.relative_to(folder)))
        names += [f"{name}:{row}" for row in range(rows[-1])]
    if len(columns) > 1:
        raise EvaluationError(
            f"the image columns have different names, {examples(sorted(columns))}, in the parquet "
            f"files in {folder}; give those of one data set"
        )
    if not names:
        raise EvaluationError(f"the parquet files in {folder} have no rows")
    return ParquetImages(tuple(shards), tuple(rows), columns.pop(), tuple(names))


def label_rows(
    images: ParquetImages, classes: Classes, synsets: Synsets | None, *, origin: str
) -> ImageSet:
    """Label the rows by the column of labels, whose class names the schema may have.

    Raises:
        EvaluationError: there is no such column, or a label fits no class.
    """
    labels: list[str | None] = []
    column, listed = "", None
    for number, shard in enumerate(images.shards):
        with _opened(shard) as file:
            column, names = _label_column(file.schema_arrow, len(classes.labels), shard)
            if number and names != listed:
                raise EvaluationError(
                    f"{images.shards[0]} and {shard} have different class names; "
                    "give the files of one data set"
                )
            listed = names
            labels += _labels(file, column)
    layout = f"parquet, column {column}"
    if synsets:
        listed = list(synsets.names.values())
        layout += f", classes from {synsets.file.name}"
    elif listed:
        layout += ", classes named in the schema"
    used = {label for label in labels if label is not None}
    are_numbers = all(map(NUMBER.fullmatch, used))
    if synsets and not are_numbers:
        raise EvaluationError(f"{origin} has no numbers as labels; leave out --synsets")
    if listed and are_numbers:
        by_number = classes.match_list(listed, map(int, used), origin=origin)
        matched = {str(number): index for number, index in by_number.items()}
    else:
        matched = classes.match(used, origin=origin)
    indices = [None if label is None else matched[label] for label in labels]
    return label_images(images, indices, layout=layout, origin=origin)


def _labels(file: pq.ParquetFile, column: str) -> list[str | None]:
    labels = file.read([column]).column(0).to_pylist()
    return [None if label in (None, "", NO_LABEL) else str(label) for label in labels]


def _read_rows(file: pq.ParquetFile, column: str, rows: Sequence[int]) -> Iterator[bytes]:
    first = 0
    for group in range(file.num_row_groups):
        end = first + file.metadata.row_group(group).num_rows
        if wanted := _between(rows, first, end):
            batches = file.iter_batches(ROWS, [group], [column], use_threads=False)
            yield from _pick(batches, wanted)
        first = end


def _pick(batches: Iterable[pa.RecordBatch], rows: Iterable[int]) -> Iterator[bytes]:
    wanted, first = deque(rows), 0
    for batch in batches:
        column = batch.column(0)
        if pa.types.is_struct(column.type):
            column = pc.struct_field(column, "bytes")
        while wanted and wanted[0] < first + len(column):
            yield column[wanted.popleft() - first].as_py() or b""
        first += len(column)
        if not wanted:
            return


def _between(numbers: Sequence[int], low: int, high: int) -> list[int]:
    """Return those of increasing numbers that are in a range, counted from its beginning."""
    inside = numbers[bisect_left(numbers, low) : bisect_left(numbers, high)]
    return [number - low for number in inside]


@contextmanager
def _opened(shard: Path) -> Iterator[pq.ParquetFile]:
    try:
        # Without these, whole row groups are read into memory.
        with pq.ParquetFile(shard, buffer_size=BUFFER, pre_buffer=False) as file:
            yield file
    except (pa.ArrowException, OSError, ValueError) as error:  # a column name may not be text
        reason = getattr(error, "strerror", None) or first_line(error)
        raise EvaluationError(
            f"cannot read {shard}: {reason}; copy or download it again"
        ) from error


def _image_column(schema: pa.Schema, shard: Path) -> str:
    known: list[str] = [field.name for field in schema if _has_images(field.type)]
    described = [name for name in known if _feature(schema, name).get("_type") == "Image"]
    usual = [name for name in IMAGE_COLUMNS if name in known]
    if len(described) == 1 or usual:
        column = described[0] if len(described) == 1 else usual[0]
        _refuse_repeated(column, schema, shard)
        return column
    raise EvaluationError(
        f"{shard} has no column of images (binary, or a struct with bytes) named image; "
        f"it has {examples(schema.names)}"
    )


def _refuse_repeated(column: str, schema: pa.Schema, shard: Path) -> None:
    if schema.names.count(column) > 1:
        raise EvaluationError(f"{shard} has several columns named {column!r}; leave one")


def _has_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _has_images(kind.field(index).type)
    return any(is_kind(kind) for is_kind in IMAGE_KINDS)


def _label_column(schema: pa.Schema, classes: int, shard: Path) -> tuple[str, list[str] | None]:
    """Return the column of labels, and the names of its classes if the schema has them."""
    named = {name: names for name in schema.names if (names := _class_names(schema, name))}
    fitting = [name for name, names in named.items() if len(names) == classes]
    usual = [name for name in LABEL_COLUMNS if name in schema.names]
    if not usual and len(fitting) != 1 and len(named) != 1:
        raise EvaluationError(
            f"{shard} has no column of labels named label; it has {examples(schema.names)}"
        )
    column = (usual or (fitting if len(fitting) == 1 else list(named)))[0]
    _refuse_repeated(column, schema, shard)
    kind = schema.field(column).type
    if not any(is_kind(kind) for is_kind in LABEL_KINDS):
        raise EvaluationError(
            f"{shard}: the labels in the column {column} are {kind}; write numbers or text"
        )
    return column, named.get(column)


def _class_names(schema: pa.Schema, column: str) -> list[str] | None:
    feature = _feature(schema, column)
    names = feature.get("names")
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if is_list and feature.get("_type") == "ClassLabel" else None


def _feature(schema: pa.Schema, column: str) -> dict[str, Any]:
    """Return how `datasets` describes a column, empty if it does not."""
    try:
        description: Any = json.loads((schema.metadata or {}).get(DESCRIPTION, b"{}"))
        feature = description["info"]["features"][column]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return feature if isinstance(feature, dict) else {}
