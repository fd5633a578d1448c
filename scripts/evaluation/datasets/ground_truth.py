"""Reads the files that say which label each image has."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client import SUFFIXES
from scripts.evaluation.datasets.classes import NUMBER, WORDNET_ID
from scripts.evaluation.datasets.words import count, examples
from scripts.evaluation.errors import EvaluationError

# Names of the columns in CSV files, in lower case, the most specific first.
FILE_COLUMNS = (
    *("imageid", "image_id", "file_name", "filename", "file", "file_path", "filepath"),
    *("image_path", "image", "img", "path", "name", "id"),
)
LABEL_COLUMNS = (
    *("predictionstring", "label", "label_name", "class_name", "class", "category"),
    *("synset", "wnid", "target", "label_id", "class_id", "class_index"),
)
# Kaggle's column: a WordNet id and four coordinates for each object, `n03995372 85 1 499 272`.
BOXES = "predictionstring"
MAX_BYTES = 1 << 28
LINE_END = re.compile(r"\r\n|\n|\r")
DELIMITERS = "\t;,"
FORMS = "write a file and its label on each line, as CSV"


@dataclass(frozen=True)
class InOrder:
    """A label for each image, in the order of the sorted file names; numbers begin at 1."""

    file: Path
    labels: tuple[str, ...]

    @property
    def are_numbers(self) -> bool:
        """Whether the labels are ILSVRC's numbers, else they are WordNet ids."""
        return bool(NUMBER.fullmatch(self.labels[0]))


@dataclass(frozen=True)
class ByName:
    """Files, with or without folder and suffix, and the label of each; numbers begin at 0."""

    file: Path
    rows: tuple[tuple[str, str], ...]

    @property
    def are_numbers(self) -> bool:
        """Whether all labels are numbers."""
        return all(NUMBER.fullmatch(label) for _, label in self.rows)


def read_ground_truth(file: Path) -> InOrder | ByName:
    """Read the labels of images.

    A line has a number (ILSVRC's own numbering from 1) or a WordNet id, for the images in the order
    of their names; or a file name, a space, and a class index from 0 or a WordNet id, as Caffe's
    val.txt; or the file is CSV or TSV with a column of files and one of labels, with or without
    names of the columns, as Kaggle's LOC_val_solution.csv.

    Raises:
        EvaluationError: the file cannot be read, or has none of these forms.
    """
    text = read_text(file)
    lines = LINE_END.split(text.rstrip())
    if not text.strip():
        raise EvaluationError(f"{file} is empty; {FORMS}")
    if delimiters := [each for each in DELIMITERS if each in lines[0]]:
        table = _table(text, delimiters, file)
        rows = _from_csv(table, file) if table else ()
        if not rows:
            raise EvaluationError(f"{file} has no labels; {FORMS}")
        return ByName(file, rows)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise EvaluationError(f"{file}: line {number} is empty; {FORMS}")
    if any(len(line.split()) > 1 for line in lines):
        return ByName(file, _from_lines(lines, file))
    return InOrder(file, _labels_only(lines, file))


def read_text(file: Path) -> str:
    """Read a file of UTF-8 text.

    Raises:
        EvaluationError: it is no such file.
    """
    try:
        if not file.is_file():
            raise EvaluationError(f"{file} is not a file; give a text file with labels")
        if file.stat().st_size > MAX_BYTES:
            raise EvaluationError(f"{file} is too large to have labels alone; give a text file")
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise EvaluationError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{file} is not UTF-8 text; save it as UTF-8") from error
    if "\0" in text:
        raise EvaluationError(f"{file} is not text; give a text file with labels")
    return text


def _labels_only(lines: Sequence[str], file: Path) -> tuple[str, ...]:
    labels = tuple(line.strip() for line in lines)
    for form in (NUMBER, WORDNET_ID):
        if form.fullmatch(labels[0]):
            for number, label in enumerate(labels, 1):
                if not form.fullmatch(label):
                    raise EvaluationError(f"{file}: line {number} is {label!r}, unlike line 1")
            return labels
    raise EvaluationError(f"{file}: line 1 is {labels[0]!r}, no number or WordNet id; {FORMS}")


def _from_lines(lines: Sequence[str], file: Path) -> tuple[tuple[str, str], ...]:
    rows = []
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().replace("\t", " ").rpartition(" ")
        if not name or not (NUMBER.fullmatch(label) or WORDNET_ID.fullmatch(label)):
            raise EvaluationError(
                f"{file}: line {number} is {line.strip()!r}, not a file and a number; {FORMS}"
            )
        rows.append((name.strip(), label))
    return tuple(rows)


def _table(text: str, delimiters: Sequence[str], file: Path) -> list[list[str]]:
    """Split CSV at the first delimiter with which all rows are equally long."""
    for delimiter in delimiters:
        rows = _cells(text, delimiter, file)
        uneven = next((row for _, row in rows if len(row) != len(rows[0][1])), None)
        if uneven is None:
            return [row for _, row in rows]
    line = next(line for line, row in rows if row is uneven)
    raise EvaluationError(
        f"{file}: line {line} has {count(len(uneven or ()), 'column')}, the first has "
        f"{len(rows[0][1])}; put names and labels with {delimiter!r} in quotes"
    )


def _cells(text: str, delimiter: str, file: Path) -> list[tuple[int, list[str]]]:
    """Return the line number and cells of each row that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise EvaluationError(f"{file}: line {reader.line_num} is not CSV: {error}") from error
    return [(line, cells) for line, cells in rows if any(cells)]


def _from_csv(rows: Sequence[Sequence[str]], file: Path) -> tuple[tuple[str, str], ...]:
    header = [cell.lower() for cell in rows[0]]
    name, label = _column(header, FILE_COLUMNS), _column(header, LABEL_COLUMNS)
    has_header = name is not None or label is not None
    if any(Path(cell).suffix in SUFFIXES for cell in header) or not has_header:
        if len(header) == len(("file", "label")):
            return tuple((row[0], row[1]) for row in rows)
        name = None
    if name is None or label is None:
        raise EvaluationError(
            f"{file} has the columns {examples(rows[0])}; "
            "name the one of the files `file` and the one of the labels `label`"
        )
    if header[label] == BOXES:
        return tuple((row[name], _in_boxes(row[label], file)) for row in rows[1:])
    return tuple((row[name], row[label]) for row in rows[1:])


def _column(header: Sequence[str], known: Sequence[str]) -> int | None:
    return next((header.index(name) for name in known if name in header), None)


def _in_boxes(boxes: str, file: Path) -> str:
    """Return the only class of the objects in an image."""
    ids = {word for word in boxes.split() if WORDNET_ID.fullmatch(word)}
    if len(ids) > 1:
        raise EvaluationError(f"{file}: an image has several classes: {boxes!r}; leave one")
    return next(iter(ids), "")
