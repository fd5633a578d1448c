"""When the supervisor restarts, pauses and gives up, with a clock and a server of the test."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.embedded import EmbeddedServer, ServerError, Supervisor
from scripts.embedded.supervisor import MAX_RESTARTS, STABLE_SECONDS
from scripts.embedded.triton import StartFault
from scripts.repository.errors import BuildError


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class FailingServer(EmbeddedServer):
    """Runs for each of `runs` seconds, and then ends immediately every time."""

    def __init__(self, clock: Clock, folder: Path, runs: list[float]) -> None:
        super().__init__(folder)
        self.clock = clock
        self.runs = iter(runs)
        self._folder = folder

    @property
    def running(self) -> "FailingServer":  # type: ignore[override]
        return self

    def wait(self, _: float) -> str:
        self.clock.now += next(self.runs, 0)
        return "signal SIGFPE"

    def restart(self) -> None:
        self.clock.now += 60  # a slow start does not count as running


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("scripts.embedded.supervisor.time", clock)
    monkeypatch.setattr("scripts.embedded.supervisor.Health", lambda _: None)
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
def test_only_restarts_in_a_row_are_limited(
    clock: Clock, tmp_path: Path, runs: list[float], restarts: int
) -> None:
    lines: list[str] = []
    with pytest.raises(ServerError, match="giving up after 5 restarts"):
        Supervisor(FailingServer(clock, tmp_path, runs), lines.append).run()
    numbers = [line.rpartition(" ")[2] for line in lines if "restarting" in line]
    assert numbers == [f"({number})" for number in range(1, restarts + 1)]


def test_the_pause_before_a_restart_in_a_row_doubles(clock: Clock, tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(ServerError):
        Supervisor(FailingServer(clock, tmp_path, [STABLE_SECONDS]), lines.append).run()
    assert [line for line in lines if "restarting" in line] == [
        f"tritonserver ended with signal SIGFPE; restarting{pause} ({number})"
        for number, pause in enumerate(["", " in 0.5 s", " in 1 s", " in 2 s", " in 4 s"], 1)
    ]


class DamagedServer(FailingServer):
    """Is damaged, and cannot be replaced."""

    names: tuple[str, ...] = ()
    error: Exception = ServerError("out of memory")
    restarts = 0

    @property
    def gpus(self) -> tuple[str, ...]:
        return self.names

    def wait(self, _: float) -> str:
        self.clock.now += 1
        return ""

    def replace(self, *, abrupt: bool = False) -> None:  # noqa: ARG002
        raise self.error

    def restart(self) -> None:
        self.restarts += 1
        raise KeyboardInterrupt  # ends the test


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (((), ServerError("out of memory")), "the server is not replaced: out of memory"),
        ((("H200",), ServerError("out of memory")), "out of memory; restarting (1)"),
        ((("H200",), BuildError("file changed")), "the server is not replaced: file changed"),
        (((), StartFault("it crashed")), "it crashed; restarting (1)"),
    ],
)
def test_a_damaged_server_makes_room_on_a_gpu_for_its_replacement(
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: tuple[tuple[str, ...], Exception],
    line: str,
) -> None:
    health = SimpleNamespace(fault=lambda: "3 probes failed")
    monkeypatch.setattr("scripts.embedded.supervisor.Health", lambda _: health)
    server = DamagedServer(clock, tmp_path, [])
    server.names, server.error = damage
    lines: list[str] = []

    def report(text: str) -> None:
        lines.append(text)
        if "not replaced" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Supervisor(server, report).run()
    assert lines[-1] == line
    assert server.restarts == ("restarting" in line)
