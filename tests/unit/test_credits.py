"""Credit-based flow control: the preprocessing and the postprocessing side in one process."""

import gc
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from scripts.repository.steps.postprocess import credits as returns
from scripts.repository.steps.postprocess.credits import CreditReturns
from scripts.repository.steps.preprocess import credits as limits
from scripts.repository.steps.preprocess.credits import CreditLimit

SECOND = 1_000_000_000
LIMIT = 8


@dataclass
class Clock:
    """A fake `time` module: time passes when a test advances it or sleeps."""

    now: int = 1000 * SECOND
    sleeps: list[float] = field(default_factory=list)
    events: dict[int, Callable[[], None]] = field(default_factory=dict)

    def at(self, time: int, event: Callable[[], None]) -> None:
        self.events[time] = event

    def monotonic_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += int(seconds * SECOND)
        for due in [time for time in self.events if time <= self.now]:
            self.events.pop(due)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(limits, "time", clock)
    monkeypatch.setattr(returns, "time", clock)
    return clock


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def worker(clock: Clock, folder: Path, warnings: list[str]) -> CreditLimit:
    return CreditLimit(LIMIT, warnings.append)


@pytest.fixture
def postprocessing(clock: Clock, folder: Path) -> CreditReturns:
    return CreditReturns()


@pytest.fixture
def busy(clock: Clock, worker: CreditLimit, postprocessing: CreditReturns) -> None:
    """The last credit took one second and returned just now."""
    round_trip(clock, worker, postprocessing, seconds=1)


def round_trip(
    clock: Clock, worker: CreditLimit, postprocessing: CreditReturns, seconds: float
) -> None:
    issued = worker.issue(1)
    clock.sleep(seconds)
    postprocessing.give_back(issued)
    clock.now += 1
    clock.sleeps.clear()


def test_a_credit_is_outstanding_until_it_returns(
    busy: None, worker: CreditLimit, postprocessing: CreditReturns
) -> None:
    three, two = worker.issue(3), worker.issue(2)
    assert three.shape == (3, 2)
    assert three.dtype == np.int64
    assert worker.outstanding() == 5
    postprocessing.give_back(two)
    assert worker.outstanding() == 3
    postprocessing.give_back(three)
    assert worker.outstanding() == 0


def test_a_worker_waits_while_its_limit_is_outstanding(
    busy: None, clock: Clock, worker: CreditLimit, postprocessing: CreditReturns
) -> None:
    worker.issue(LIMIT - 1)
    worker.wait(1)
    assert not clock.sleeps
    last = worker.issue(1)
    clock.at(clock.now + SECOND // 2, lambda: postprocessing.give_back(last))
    worker.wait(1)
    assert sum(clock.sleeps) == pytest.approx(0.5, abs=0.01)


def test_the_limit_applies_from_the_first_image(
    clock: Clock, worker: CreditLimit, postprocessing: CreditReturns
) -> None:
    issued = worker.issue(LIMIT)
    clock.sleep(0.9)
    assert worker.outstanding() == LIMIT
    postprocessing.give_back(issued[:1])
    assert worker.outstanding() == LIMIT - 1


def test_the_limit_applies_again_after_an_idle_hour(
    busy: None, clock: Clock, worker: CreditLimit
) -> None:
    clock.sleep(3600)
    worker.issue(LIMIT)
    clock.sleep(0.9)
    assert worker.outstanding() == LIMIT


@pytest.mark.parametrize(("seconds", "expiry"), [(0.1, 1), (2, 3), (60, 7.5)])
def test_credits_expire_after_one_and_a_half_times_the_longest_round_trip(
    clock: Clock,
    worker: CreditLimit,
    postprocessing: CreditReturns,
    seconds: float,
    expiry: float,
) -> None:
    round_trip(clock, worker, postprocessing, seconds)
    worker.issue(LIMIT)
    clock.sleep(expiry - 0.01)
    assert worker.outstanding() == LIMIT
    clock.sleep(0.02)
    assert worker.outstanding() == 0


def test_a_credit_expires_sooner_when_later_credits_return(
    clock: Clock, worker: CreditLimit, postprocessing: CreditReturns
) -> None:
    round_trip(clock, worker, postprocessing, 0.1)
    worker.issue(1)
    round_trip(clock, worker, postprocessing, 0.1)
    assert worker.outstanding() == 1
    round_trip(clock, worker, postprocessing, 0.06)
    assert worker.outstanding() == 0


def decode(worker: CreditLimit, clock: Clock, images: int) -> float:
    """Decode images whose credits never return; return the seconds spent waiting."""
    clock.sleeps.clear()
    for _ in range(images):
        worker.wait(1)
        worker.issue(1)
    return sum(clock.sleeps)


def test_a_worker_gets_past_a_queue_of_cancelled_requests_and_then_slows_down(
    busy: None, clock: Clock, worker: CreditLimit
) -> None:
    assert decode(worker, clock, LIMIT) == 0
    assert decode(worker, clock, 1) == pytest.approx(1.5, abs=0.01)
    assert decode(worker, clock, LIMIT - 1) == 0
    assert decode(worker, clock, limits.PROBE_FACTOR * LIMIT) == 0
    assert decode(worker, clock, 10 * LIMIT) > 5


def test_a_return_ends_the_probing(
    busy: None, clock: Clock, worker: CreditLimit, postprocessing: CreditReturns
) -> None:
    decode(worker, clock, LIMIT + 1)
    assert decode(worker, clock, 2 * LIMIT) == 0
    round_trip(clock, worker, postprocessing, 0.1)
    assert decode(worker, clock, 1) > 1


def test_no_credit_of_a_burst_expires_while_the_burst_is_processed(
    clock: Clock, worker: CreditLimit, postprocessing: CreditReturns
) -> None:
    for _ in range(limits.ROUND_TRIPS):
        round_trip(clock, worker, postprocessing, 0.01)
    burst = worker.issue(50)
    for number in range(50):
        assert worker.outstanding() == 50 - number
        clock.sleep(0.1)
        postprocessing.give_back(burst[number : number + 1])


def test_old_round_trips_are_forgotten(
    clock: Clock, worker: CreditLimit, postprocessing: CreditReturns
) -> None:
    round_trip(clock, worker, postprocessing, 4)
    for _ in range(limits.ROUND_TRIPS):
        round_trip(clock, worker, postprocessing, 0.1)
    worker.issue(1)
    clock.sleep(1.01)
    assert worker.outstanding() == 0


def test_each_worker_counts_its_own_credits(
    busy: None, clock: Clock, worker: CreditLimit, postprocessing: CreditReturns
) -> None:
    other = CreditLimit(LIMIT, pytest.fail)
    issued_by_other = other.issue(2)
    worker.issue(3)
    clock.now += SECOND
    postprocessing.give_back(issued_by_other[:1])
    assert (worker.outstanding(), other.outstanding()) == (3, 1)


def test_a_returned_credit_does_not_count_again(
    busy: None, clock: Clock, worker: CreditLimit, postprocessing: CreditReturns
) -> None:
    issued = worker.issue(2)
    for _ in range(3):
        postprocessing.give_back(issued[:1])
    assert worker.outstanding() == 1


def numbers(*rows: tuple[int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array(rows, np.int64)


def test_forged_credits_change_nothing(
    busy: None, clock: Clock, worker: CreditLimit, postprocessing: CreditReturns
) -> None:
    ((number, nonce),) = worker.issue(1).tolist()
    assert worker.outstanding() == 1
    before = vars(worker).copy()
    extremes = (0, -1, 1, 2**62, -(2**63), 2**63 - 1)
    postprocessing.give_back(numbers(*((number, each) for each in extremes)))
    postprocessing.give_back(numbers(*((each, nonce) for each in extremes)))
    postprocessing.give_back(numbers((number, nonce ^ 1), (number ^ 1, nonce)))
    assert worker.outstanding() == 1
    assert vars(worker) == before
    assert list(postprocessing.pipes) == [number]


def test_credits_return_after_a_flood_of_forged_ones(
    busy: None, worker: CreditLimit, postprocessing: CreditReturns
) -> None:
    issued = worker.issue(LIMIT)
    forged = np.repeat(issued[:1] ^ [0, 1], 10_000, axis=0)
    postprocessing.give_back(forged)
    assert worker.outstanding() == LIMIT
    postprocessing.give_back(issued)
    assert worker.outstanding() == 0


def foreign_file(path: Path) -> None:
    path.write_bytes(b"precious")


def foreign_link(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


@pytest.mark.parametrize("make", [foreign_file, foreign_link, Path.mkdir])
def test_only_pipes_are_written_to(
    folder: Path, postprocessing: CreditReturns, make: Callable[[Path], None]
) -> None:
    path = folder / returns.PIPE.format(5)
    make(path)
    postprocessing.give_back(numbers((5, 5)))
    assert not postprocessing.pipes
    assert not path.is_file() or path.read_bytes() == b"precious"


def test_a_pipe_of_another_user_is_not_written_to(
    folder: Path,
    worker: CreditLimit,
    postprocessing: CreditReturns,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    issued = worker.issue(1)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    postprocessing.give_back(issued)
    assert not postprocessing.pipes


def test_a_pipe_with_garbage_does_not_end_the_worker(
    busy: None, folder: Path, worker: CreditLimit
) -> None:
    worker.issue(1)
    (pipe,) = folder.iterdir()
    pipe.write_bytes(b"garbage")
    assert worker.outstanding() == 1


def test_nothing_is_limited_where_no_pipe_can_be_created(
    clock: Clock, folder: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "missing"))
    worker = CreditLimit(LIMIT, warnings.append)
    assert decode(worker, clock, 100 * LIMIT) == 0
    (warning,) = warnings
    assert "No such file or directory" in warning


def test_nothing_is_limited_if_no_credit_ever_returns(
    clock: Clock, worker: CreditLimit, warnings: list[str]
) -> None:
    assert decode(worker, clock, 10 * LIMIT) < 5
    assert decode(worker, clock, 1000 * LIMIT) == 0
    assert warnings == ["decoding is not limited until a credit returns, since none ever has"]


def test_the_limit_applies_once_a_credit_has_returned(
    clock: Clock, worker: CreditLimit, postprocessing: CreditReturns
) -> None:
    decode(worker, clock, 10 * LIMIT)
    round_trip(clock, worker, postprocessing, 0.1)
    assert decode(worker, clock, 10 * LIMIT) > 5


def test_a_worker_removes_its_pipe(clock: Clock, folder: Path) -> None:
    worker = CreditLimit(LIMIT, pytest.fail)
    assert [each.name for each in folder.iterdir()] == [limits.PIPE.format(worker.number)]
    del worker
    gc.collect()
    assert not any(folder.iterdir())


def test_the_first_credit_of_an_image_of_ten_crops_may_take_ten_times_as_long(
    clock: Clock, folder: Path, warnings: list[str]
) -> None:
    worker = CreditLimit(LIMIT, warnings.append, crops=10)
    worker.issue(LIMIT)
    clock.sleep(29)
    decode(worker, clock, 1)
    assert not warnings
    clock.sleep(2)
    worker.issue(LIMIT)
    worker.wait(1)
    assert len(warnings) == 1
