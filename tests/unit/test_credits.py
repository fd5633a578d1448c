"""Credit-based flow control: the preprocessing and the postprocessing side in one process."""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

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
def worker(clock: Clock) -> CreditLimit:
    return CreditLimit(LIMIT)


@pytest.fixture
def postprocessing(clock: Clock) -> CreditReturns:
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
    assert three.shape == (3, 4)
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


def test_a_return_to_any_worker_ends_the_probing(
    busy: None, clock: Clock, worker: CreditLimit, postprocessing: CreditReturns
) -> None:
    other = CreditLimit(LIMIT)
    round_trip(clock, other, postprocessing, 1)
    decode(worker, clock, LIMIT + 1)
    assert decode(worker, clock, 2 * LIMIT) == 0
    round_trip(clock, other, postprocessing, 0.1)
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


def test_the_return_of_a_later_credit_in_the_same_slot_does_not_count_for_a_lost_one(
    busy: None, clock: Clock, worker: CreditLimit, postprocessing: CreditReturns
) -> None:
    worker.issue(1)
    for _ in range(limits.SLOTS):
        round_trip(clock, worker, postprocessing, 0.1)
        worker.outstanding()
    worker.issue(1)
    assert worker.round_trips == deque([100_000_000] * limits.ROUND_TRIPS)
    assert worker.outstanding() == 1


def test_each_worker_counts_its_own_credits(
    busy: None, clock: Clock, worker: CreditLimit, postprocessing: CreditReturns
) -> None:
    other = CreditLimit(LIMIT)
    issued_by_other = other.issue(2)
    worker.issue(3)
    clock.now += SECOND
    postprocessing.give_back(issued_by_other[:1])
    assert (worker.outstanding(), other.outstanding()) == (3, 1)


def forged(**changes: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    credit = {"process": 0, "file": 0, "slot": 0, "issued": 0} | changes
    return np.array([list(credit.values())])


def test_forged_credits_change_nothing(
    busy: None, worker: CreditLimit, postprocessing: CreditReturns
) -> None:
    (real,) = worker.issue(1)
    before = worker.counters.tolist()
    postprocessing.give_back(real[np.newaxis] + forged(issued=-1))
    postprocessing.give_back(real[np.newaxis] + forged(slot=limits.SLOTS))
    postprocessing.give_back(np.array([[*real[:2], real[2] + 1, 0]]))
    postprocessing.give_back(np.array([[*real[:2], 0, worker.counters[0]]]))
    postprocessing.give_back(forged(process=2**62))
    postprocessing.give_back(forged(process=os.getpid(), file=-1))
    assert worker.counters.tolist() == before


def test_a_file_that_does_not_hold_counters_is_not_written_to(
    postprocessing: CreditReturns,
) -> None:
    file = os.memfd_create("something-else")
    content = np.full(limits.SLOTS, 5).tobytes()
    os.write(file, content)
    postprocessing.give_back(forged(process=os.getpid(), file=file, issued=5))
    assert os.pread(file, len(content) + 1, 0) == content
    os.close(file)
