"""The results of a section, and their table in docs/reliability.md."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

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


def replaced(page: str, section: str, text: str) -> str:
    """Put a text between the markers of a section.

    Raises:
        ValueError: the page does not have the markers once.
    """
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    found = len(pattern.findall(page))
    if found != 1:
        raise ValueError(f"the page has {found} places for the section {section}")
    return pattern.sub(lambda _: f"{begin}\n{text}\n{end}", page)
