"""A small table that is printed in a terminal and written as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.markup import escape
from rich.table import Table


@dataclass(frozen=True)
class Sheet:
    """Rows of text under a title; the columns from number `right` on are aligned to the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: int = 1

    def to_rich(self) -> Table:
        """Return the table for a terminal; a narrow one wraps the texts, not the numbers."""
        table = Table(title=f"\n{escape(self.title)}", box=box.SIMPLE_HEAD, show_edge=False)
        table.padding, table.title_justify = (0, 1, 0, 0), "left"
        for place, name in enumerate(self.columns):
            is_number = place >= self.right
            table.add_column(
                escape(name), justify="right" if is_number else "left", no_wrap=is_number
            )
        for row in self.rows:
            table.add_row(*(escape(_visible(cell)) for cell in row))
        return table

    def to_markdown(self) -> str:
        """Return the table in GitHub's Markdown, after its title as a heading."""
        rules = ["---" if place < self.right else "---:" for place in range(len(self.columns))]
        lines = [self.columns, rules, *(tuple(map(_cell, row)) for row in self.rows)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"## {self.title}\n\n{table}\n"


def _visible(text: str) -> str:
    """Write characters such as a line break in a file's name as Python does."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def _cell(text: str) -> str:
    """Keep what a label or a file's name contains from ending the cell or beginning a tag."""
    text = _visible(text)
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|")):
        text = text.replace(character, entity)
    return text
