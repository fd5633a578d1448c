"""The results of a section, and their table in docs/reliability.md."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from scripts.measuring.markers import replaced

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
T = TypeVar("T")


class Track(Protocol):
    """Shows how many of `total` items are done."""

    def __call__(self, items: Iterable[T], total: int, text: str, /) -> Iterable[T]: ...


@dataclass(frozen=True)
class Row:
    """One line of a table: what was tried, what came of it, and what was not as required."""

    tried: str
    result: str
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        cells = [self.tried, "; ".join([self.result, *(f"**{each}**" for each in self.problems)])]
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write(section: str, rows: Sequence[Row], measured: str) -> None:
    """Write a section's table, and when and where it was measured, into the page."""
    lines = ["| tried | result |", "| --- | --- |", *map(str, rows), ""]
    lines.append(f"`python -m tests.reliability {section}`, {measured}")
    page = replaced(PAGE.read_text("utf-8"), section, "\n".join(lines))
    PAGE.write_text(page, "utf-8")
