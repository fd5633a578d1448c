"""Reads the labels of classes from text, JSON and CSV files."""

import ast
import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scripts.repository.errors import BuildError

# Keys under which files nest their labels, the most specific first.
NESTED = ("id2label", "label2id", "names", "class_names", "classes", "labels", "categories")
ID_COLUMNS = ("id", "index", "idx", "class_id", "class_index", "label_id", "class_idx", "")
LABEL_COLUMNS = ("label", "name", "class_name", "label_name", "display_name", "class", "labels")
MAX_DIGITS = 10
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# `0 cat`, `1: dog`: what Teachable Machine writes, and others.
NUMBERED = re.compile(r"(\d{1,9})(?:\s*[:,]\s*|\s+)(\S.*)")


def read(file: Path) -> tuple[str, ...]:
    """Read the labels of all classes, in the order of their ids.

    The file has one label a line, perhaps after its number; or it is CSV, with a column of labels
    and perhaps one of ids; or it is JSON: a list, {id: label}, {label: id}, a list of objects, or
    an object with one of these under `NESTED`. A dictionary or list may be written in Python.

    Raises:
        BuildError: the file is none of these, or its ids are not 0, 1, 2 and so on.
    """
    if file.is_char_device():
        raise BuildError(f"{file} is a device, which may have no end; give a file")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BuildError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BuildError(f"{file} is not UTF-8 text; write one label a line") from error
    if file.suffix in {".yaml", ".yml"}:
        raise BuildError(f"{file} is YAML, which is not read; write one label a line, or JSON")
    if file.suffix == ".json" or text.lstrip()[:1] in ("{", "["):
        return from_value(_structure(text, file), str(file))
    if file.suffix in {".csv", ".tsv"}:
        return _from_rows(_rows(text, str(file)), str(file))
    return from_lines(text, str(file))


def from_value(value: Any, origin: str) -> tuple[str, ...]:  # noqa: ANN401 - as JSON has it
    """Take the labels from a list or dictionary in one of the forms that `read` describes.

    Raises:
        BuildError: it has none of these forms.
    """
    if isinstance(value, dict):
        return _from_dictionary(value, origin)
    if isinstance(value, list | tuple) and value:
        if all(isinstance(item, dict) for item in value):
            return _from_objects(value, origin)
        if all(_is_label(item) for item in value):
            return _checked([_written(item) for item in value], origin)
    raise _no_labels(origin)


def from_lines(text: str, origin: str) -> tuple[str, ...]:
    """Take one label from each line; empty lines at the end are ignored.

    Raises:
        BuildError: a line is empty.
    """
    lines = re.split(r"\r\n|\n|\r", text.rstrip())
    numbered = [NUMBERED.fullmatch(line.strip()) for line in lines]
    if all(match and int(match[1]) == index for index, match in enumerate(numbered)):
        lines = [match[2] for match in numbered if match]
    return _checked(lines, origin)


def _structure(text: str, file: Path) -> Any:  # noqa: ANN401
    try:
        return json.loads(text, object_pairs_hook=_without_repetition)
    except json.JSONDecodeError as error:
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise BuildError(f"{file} is not JSON ({error}); write one label a line") from error
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{file}: {error}") from error


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"{key!r} is there twice; give each class one label")
        seen[key] = value
    return seen


def _from_dictionary(value: dict[Any, Any], origin: str) -> tuple[str, ...]:
    if nested := next((key for key in NESTED if value.get(key)), None):
        return from_value(value[nested], origin)
    if value and all(_is_id(key) and _is_label(label) for key, label in value.items()):
        return _in_order(((int(key), _written(item)) for key, item in value.items()), origin)
    if value and all(_is_id(number) for number in value.values()):
        return _in_order(((int(number), str(key)) for key, number in value.items()), origin)
    raise _no_labels(origin)


def _from_objects(items: Sequence[dict[str, Any]], origin: str) -> tuple[str, ...]:
    label_key, id_key = _column(items[0], LABEL_COLUMNS), _column(items[0], ID_COLUMNS)
    if label_key is None or not all(_is_label(item.get(label_key)) for item in items):
        raise _no_labels(origin)
    labels = [_written(item[label_key]) for item in items]
    if id_key is None:
        return _checked(labels, origin)
    if not all(_is_id(item.get(id_key)) for item in items):
        raise _no_labels(origin)
    return _in_order(
        ((int(item[id_key]), label) for item, label in zip(items, labels, strict=True)), origin
    )


def _rows(text: str, origin: str) -> list[list[str]]:
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    try:
        rows = list(csv.reader(text.splitlines(keepends=True), delimiter=delimiter))
    except csv.Error as error:
        raise BuildError(f"{origin} is not CSV ({error}); write one label a line") from error
    return [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]


def _from_rows(rows: list[list[str]], origin: str) -> tuple[str, ...]:
    if not rows:
        raise _no_labels(origin)
    width = len(rows[0])
    if any(len(row) != width for row in rows):
        raise BuildError(
            f"{origin} has rows of different lengths; put labels with commas in quotes"
        )
    header = {name.lower(): index for index, name in enumerate(rows[0])}
    labels, ids = _column(header, LABEL_COLUMNS), _column(header, ID_COLUMNS)
    if labels is not None:
        rows = rows[1:]
        objects = [{"label": row[header[labels]]} for row in rows]
        if ids is not None:
            objects = [
                item | {"id": row[header[ids]]} for item, row in zip(objects, rows, strict=True)
            ]
        return from_value(objects, origin)
    if width == 1:
        return _checked([row[0] for row in rows], origin)
    for id_column, label_column in ((0, 1), (-1, 0)):
        if all(_is_id(row[id_column]) for row in rows):
            return _in_order(((int(row[id_column]), row[label_column]) for row in rows), origin)
    raise _no_labels(origin)


def _column(names: Iterable[str], known: Iterable[str]) -> str | None:
    present = set(names)
    return next((name for name in known if name in present), None)


def _in_order(pairs: Iterable[tuple[int, str]], origin: str) -> tuple[str, ...]:
    ordered = sorted(pairs, key=lambda pair: pair[0])
    for expected, (number, label) in enumerate(ordered):
        if number != expected:
            problem = (
                f"has no label for class {expected}"
                if number > expected
                else f"has two labels for class {number}, of which one is {label!r}"
            )
            raise BuildError(f"{origin} {problem}; number the classes 0, 1, 2 and so on")
    return _checked([label for _, label in ordered], origin)


def _checked(labels: Sequence[str], origin: str) -> tuple[str, ...]:
    """Clean labels of control characters, since labels.txt has one label a line."""
    cleaned = tuple(CONTROL.sub(" ", label).strip() for label in labels)
    for index, label in enumerate(cleaned):
        if not label:
            raise BuildError(f"{origin} has an empty line or label, that of class {index}; name it")
    return cleaned


def _is_id(value: Any) -> bool:  # noqa: ANN401
    if isinstance(value, str):
        return value.isascii() and value.isdigit() and len(value) < MAX_DIGITS
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_label(value: Any) -> bool:  # noqa: ANN401
    if isinstance(value, list | tuple):  # Keras: ["n01440764", "tench"]
        return bool(value) and all(isinstance(part, str) for part in value)
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _written(value: Any) -> str:  # noqa: ANN401
    return " ".join(value) if isinstance(value, list | tuple) else str(value)


def _no_labels(origin: str) -> BuildError:
    return BuildError(
        f"{origin} has no labels in a known form; write one label a line, a JSON list, "
        "or {id: label}"
    )
