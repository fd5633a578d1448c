"""`python -m tests.reliability`: measure, and write the tables of docs/reliability.md."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scripts import arguments, cli
from tests.integration.conftest import add_birds
from tests.reliability import costs, faults, fuzz, rows, soak
from tests.reliability.rows import Row, Track

Section = Callable[[Path, float, Track], Iterator[Row]]
T = TypeVar("T")

SECTIONS: dict[str, Section] = {
    "files": soak.bad_files,
    "soak": soak.steady,
    "faults": faults.under_faults,
    "bombs": costs.bombs,
    "fuzz": fuzz.fuzz,
}
EXAMPLES = """\
  python -m tests.reliability                       # all, about 15 minutes on two cores
  python -m tests.reliability soak faults           # only these tables
  python -m tests.reliability soak --scale 0.01     # short, prints the table only
"""


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = cli.parser(
        "tests.reliability",
        "Send bad files, many requests, faults and costly images to a server, and write what came "
        "of it into docs/reliability.md. Exits with 1 if something was not as required.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)"
    )
    parser.add_argument(
        "--scale",
        type=arguments.share,
        default=1.0,
        metavar="S",
        help="share of the requests, from 0 to 1; below 1 the page is not written",
    )
    return parser


def main(options: argparse.Namespace) -> int:
    """Run the sections one after another; each writes its table when it is done."""
    failed = False
    with tempfile.TemporaryDirectory() as folder, _progress() as progress:

        def track(items: Iterable[T], total: int, text: str) -> Iterable[T]:
            return progress.track(items, total, description=text)

        add_birds(Path(folder, "model_repository"), Path(folder))
        for name in options.sections or SECTIONS:
            start = time.monotonic()
            found = []
            for row in SECTIONS[name](Path(folder, "model_repository"), options.scale, track):
                progress.console.print(str(row), markup=False, highlight=False)
                found.append(row)
            failed |= any(row.problems for row in found)
            if options.scale == 1:
                minutes = (time.monotonic() - start) / 60
                rows.write(
                    name, found, f"{date.today()}, {os.cpu_count()} cores, {minutes:.0f} min"
                )
    return int(failed)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=Console(soft_wrap=True))


if __name__ == "__main__":
    given = parser().parse_args()
    if unknown := set(given.sections) - set(SECTIONS):
        parser().error(f"unknown section: {', '.join(unknown)}")
    sys.exit(cli.run(lambda: main(given)))
