"""Short forms of the sections of `python -m tests.reliability`, but for the fuzzer's."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from tests.bombs import BOMBS
from tests.faults import vanish
from tests.reliability import costs, faults, soak
from tests.reliability.__main__ import Section

T = TypeVar("T")


@pytest.fixture
def less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the faults and costly images that other tests have, one protocol, and waits."""
    monkeypatch.setattr(faults, "FAULTS", {"connections reset": partial(vanish, count=100)})
    monkeypatch.setattr(faults, "LASTING", {})
    monkeypatch.setattr(faults, "PROTOCOLS", ("grpc",))
    monkeypatch.setattr(faults, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(faults, "LASTING_SECONDS", 1)
    monkeypatch.setattr(costs, "BOMBS", {name: BOMBS[name] for name in ("JPEG", "PNG, strip")})


def untracked(items: Iterable[T], total: int, text: str, /) -> Iterable[T]:
    return items


@pytest.mark.usefixtures("less")
@pytest.mark.parametrize(
    ("section", "scale", "rows"),
    [
        (soak.bad_files, 0.03, 4),
        (soak.steady, 0.01, 4),
        (faults.under_faults, 0.05, 3),
        (costs.bombs, 1, 4),
    ],
)
def test_the_short_form_finds_no_problem(
    small_repository: Path, section: Section, scale: float, rows: int
) -> None:
    found = list(section(small_repository, scale, untracked))
    assert len(found) == rows
    assert [row for row in found if row.problems] == []
