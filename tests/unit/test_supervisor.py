"""The limit of the supervisor, with a clock and a server of the test."""

import pytest

from scripts.embedded import EmbeddedServer, ServerError, supervise
from scripts.embedded.supervisor import MAX_RESTARTS, STABLE_SECONDS


class FailingServer(EmbeddedServer):
    """Runs for each of `runs` seconds, and then ends immediately every time."""

    def __init__(self, clock: "Clock", runs: list[float]) -> None:
        self.clock = clock
        self.runs = iter(runs)

    def wait(self) -> str:
        self.clock.now += next(self.runs, 0)
        return "signal SIGFPE"

    def restart(self) -> None:
        self.clock.now += 60  # a slow start does not count as running


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("scripts.embedded.supervisor.time", clock)
    return clock


@pytest.mark.parametrize(
    ("runs", "restarts"),
    [
        ([], MAX_RESTARTS),
        ([STABLE_SECONDS], MAX_RESTARTS),
        ([0, 0, 0, STABLE_SECONDS], 3 + MAX_RESTARTS),
        ([STABLE_SECONDS] * 100, 99 + MAX_RESTARTS),
    ],
)
def test_only_restarts_in_a_row_are_limited(clock: Clock, runs: list[float], restarts: int) -> None:
    lines: list[str] = []
    with pytest.raises(ServerError, match="giving up after 5 restarts"):
        supervise(FailingServer(clock, runs), lines.append)
    assert [line for line in lines if "restarting" in line] == [
        f"tritonserver ended with signal SIGFPE; restarting ({number})"
        for number in range(1, restarts + 1)
    ]
