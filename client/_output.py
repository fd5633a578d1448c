"""Writes results as tables, JSON, JSON lines or CSV."""

import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, fields
from typing import Any, TypeAlias

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ._results import Classification, Model

Write: TypeAlias = Callable[[Classification], object]

CSV_COLUMNS = (
    *("source", "model", "rank", "class_id", "probability", "label"),
    *("milliseconds", "request_id", "error"),
)

# A recipe's choices as servers before 0.4 have them, which do not state them.
USUAL = {"mode": "shorter", "interpolation": "bilinear", "colour": "rgb", "decoding": "fast"}


@contextmanager
def tables() -> Iterator[Write]:
    """Write a heading and a table for each image; errors are reported on standard error instead."""
    yield lambda result: None if result.error else _write_table(result)


@contextmanager
def json_lines() -> Iterator[Write]:
    """Write one JSON object per line."""
    yield lambda result: sys.stdout.write(json.dumps(_record(result)) + "\n")


@contextmanager
def json_array() -> Iterator[Write]:
    """Write one JSON array of the same objects, incrementally."""
    separators = itertools.chain("[", itertools.repeat(","))
    try:
        yield lambda result: sys.stdout.write(f"{next(separators)}\n{json.dumps(_record(result))}")
    finally:
        sys.stdout.write("[]\n" if next(separators) == "[" else "\n]\n")


@contextmanager
def csv_rows() -> Iterator[Write]:
    """Write a row for each prediction, and one for each image without predictions."""
    rows = csv.DictWriter(sys.stdout, CSV_COLUMNS, extrasaction="ignore")
    rows.writeheader()

    def write(result: Classification) -> None:
        record = _record(result)
        error = record["error"]
        message = f"{error['kind']}: {error['message']}" if error else ""
        ranked = [{"rank": rank, **each} for rank, each in enumerate(record["predictions"], 1)]
        rows.writerows({**record, **each, "error": message} for each in ranked or [{}])

    yield write


FORMATS: Mapping[str, Callable[[], AbstractContextManager[Write]]] = {
    "table": tables,
    "json": json_array,
    "jsonl": json_lines,
    "csv": csv_rows,
}


def write_models(models: Iterable[Model], output: str) -> None:
    """Write the list of a server's models in one of the formats."""
    if output == "table":
        Console(highlight=False).print(_models_table(models))
        return
    records = [asdict(model) for model in models]
    if output == "csv":
        rows = csv.DictWriter(sys.stdout, [column.name for column in fields(Model)])
        rows.writeheader()
        rows.writerows(record | {"recipe": json.dumps(record["recipe"])} for record in records)
    elif output == "jsonl":
        sys.stdout.writelines(json.dumps(record) + "\n" for record in records)
    else:
        sys.stdout.write(json.dumps(records, indent=2) + "\n")


def _write_table(result: Classification) -> None:
    console = Console(highlight=False)
    heading = f"{result.source} by {result.model}, {result.seconds * 1000:.1f} ms"
    table = _table("class", "probability", "label", right=2)
    for each in result.predictions:
        table.add_row(str(each.class_id), f"{each.probability:.2%}", escape(each.label))
    with console.capture() as captured:
        console.print(escape(heading), style="bold", soft_wrap=True)
        console.print(table if result.predictions else "  nothing above the threshold\n")
    # Through sys.stdout, which the progress bar replaces while it is shown.
    sys.stdout.write(captured.get())


def _models_table(models: Iterable[Model]) -> Table:
    table = _table("classes", "resize / crop", "model", "", right=1)
    for model in models:
        recipe = _recipe(model.recipe) if model.recipe else "-"
        recipe += f", {model.crops} crops" if model.crops > 1 else ""
        state = "ready" if model.ready else f"not ready: {escape(model.reason)}"
        table.add_row(str(model.classes or "-"), recipe, escape(model.name), state)
    return table


def _recipe(recipe: Mapping[str, Any]) -> str:
    """Write the sizes, and the choices that are not the usual ones."""
    sizes = f"{_size(recipe['resize'])} / {_size(recipe['crop'])}"
    choices = [recipe.get(name, usual) for name, usual in USUAL.items()]
    return ", ".join([sizes, *(each for each in choices if each not in USUAL.values())])


def _size(size: int | list[int]) -> str:
    """Write [height, width], or the one number of servers before 0.4."""
    height, width = size if isinstance(size, list) else (size, size)
    return str(height) if height == width else f"{height}x{width}"


def _table(*columns: str, right: int) -> Table:
    table = Table(*columns, box=box.SIMPLE_HEAD)
    for column in table.columns[:right]:
        column.justify = "right"
    return table


def _record(result: Classification) -> dict[str, Any]:
    error = result.error
    return {
        "source": result.source,
        "model": result.model,
        "predictions": [asdict(each) for each in result.predictions],
        "milliseconds": round(result.seconds * 1000, 3),
        "request_id": result.request_id,
        "error": {"kind": type(error).__name__, "message": str(error)} if error else None,
    }
