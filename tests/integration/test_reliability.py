"""Short forms of `python -m tests.reliability`, without those that have tests of their own."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.reliability import soak
from tests.reliability.__main__ import Section

T = TypeVar("T")


def untracked(items: Iterable[T], total: int, text: str, /) -> Iterable[T]:
    return items


@pytest.mark.parametrize(
    ("section", "scale", "rows"), [(soak.bad_files, 0.03, 4), (soak.steady, 0.01, 4)]
)
def test_the_short_form_finds_no_problem(
    small_repository: Path, section: Section, scale: float, rows: int
) -> None:
    found = list(section(small_repository, scale, untracked))
    assert len(found) == rows
    assert [row for row in found if row.problems] == []
