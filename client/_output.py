"""Writes results as tables, JSON, JSON lines or CSV."""

import csv
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ._results import Classification, Model


class Writer(ABC):
    """Writes results to standard output, one at a time."""

    @abstractmethod
    def write(self, result: Classification) -> None:
        """Write one image's result."""

    def close(self) -> None:
        """Write what follows the last result."""
        sys.stdout.flush()


class Tables(Writer):
    """A heading and a table for each image; errors are reported on standard error instead."""

    def write(self, result: Classification) -> None:
        """Write a table."""
        if result.error:
            return
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


class JsonLines(Writer):
    """One JSON object per line."""

    def write(self, result: Classification) -> None:
        """Write a line."""
        sys.stdout.write(json.dumps(_record(result)) + "\n")


class Json(Writer):
    """One JSON array of the same objects, written incrementally."""

    def __init__(self) -> None:
        self._before = "["

    def write(self, result: Classification) -> None:
        """Write an element."""
        sys.stdout.write(f"{self._before}\n{json.dumps(_record(result))}")
        self._before = ","

    def close(self) -> None:
        """End the array."""
        sys.stdout.write("[]\n" if self._before == "[" else "\n]\n")
        super().close()


class Csv(Writer):
    """A row for each prediction, and one for each image without predictions."""

    COLUMNS = (
        *("source", "model", "rank", "class_id", "probability", "label"),
        *("milliseconds", "request_id", "error"),
    )

    def __init__(self) -> None:
        self._rows = csv.DictWriter(sys.stdout, self.COLUMNS, extrasaction="ignore")
        self._rows.writeheader()

    def write(self, result: Classification) -> None:
        """Write the rows."""
        record = _record(result)
        error = record["error"]
        message = f"{error['kind']}: {error['message']}" if error else ""
        ranked = [{"rank": rank, **each} for rank, each in enumerate(record["predictions"], 1)]
        self._rows.writerows({**record, **each, "error": message} for each in ranked or [{}])


FORMATS: Mapping[str, type[Writer]] = {
    "table": Tables,
    "json": Json,
    "jsonl": JsonLines,
    "csv": Csv,
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


def _models_table(models: Iterable[Model]) -> Table:
    table = _table("classes", "shorter side / crop", "model", "", right=2)
    for model in models:
        recipe = f"{model.recipe['resize']} / {model.recipe['crop']}" if model.recipe else "-"
        state = "ready" if model.ready else f"not ready: {escape(model.reason)}"
        table.add_row(str(model.classes or "-"), recipe, escape(model.name), state)
    return table


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
