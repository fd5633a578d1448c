"""What keeps decoding from running ahead of the graph: both ends of it, in one process."""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from scripts.repository.steps.postprocess import credits as arrival
from scripts.repository.steps.preprocess import credits as departure

SECOND = 1_000_000_000
AHEAD = 8


@dataclass
class Clock:
    """Time that passes when a test says so, or sleeps."""

    now: int = 1000 * SECOND
    naps: list[float] = field(default_factory=list)
    events: dict[int, Callable[[], None]] = field(default_factory=dict)

    def at(self, time: int, event: Callable[[], None]) -> None:
        self.events[time] = event

    def monotonic_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += int(seconds * SECOND)
        for due in [time for time in self.events if time <= self.now]:
            self.events.pop(due)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(departure, "time", clock)
    monkeypatch.setattr(arrival, "time", clock)
    return clock


@pytest.fixture
def decoding(clock: Clock) -> departure.Credits:
    return departure.Credits(AHEAD)


@pytest.fixture
def postprocessing(clock: Clock) -> arrival.Credits:
    return arrival.Credits()


@pytest.fixture
def busy(clock: Clock, decoding: departure.Credits, postprocessing: arrival.Credits) -> None:
    """The last image was a second on its way, and arrived now."""
    fly(clock, decoding, postprocessing, seconds=1)


def fly(
    clock: Clock, decoding: departure.Credits, postprocessing: arrival.Credits, seconds: float
) -> None:
    issued = decoding.issue(1)
    clock.sleep(seconds)
    postprocessing.give_back(issued)
    clock.now += 1
    clock.naps.clear()


def test_a_credit_is_away_until_it_is_given_back(
    busy: None, decoding: departure.Credits, postprocessing: arrival.Credits
) -> None:
    three, two = decoding.issue(3), decoding.issue(2)
    assert three.shape == (3, 4)
    assert three.dtype == np.int64
    assert decoding.away() == 5
    postprocessing.give_back(two)
    assert decoding.away() == 3
    postprocessing.give_back(three)
    assert decoding.away() == 0


def test_decoding_waits_while_too_many_are_away(
    busy: None, clock: Clock, decoding: departure.Credits, postprocessing: arrival.Credits
) -> None:
    decoding.issue(AHEAD - 1)
    decoding.wait(1)
    assert not clock.naps
    last = decoding.issue(1)
    clock.at(clock.now + SECOND // 2, lambda: postprocessing.give_back(last))
    decoding.wait(1)
    assert sum(clock.naps) == pytest.approx(0.5, abs=0.01)


def test_decoding_waits_from_the_first_image_on(
    clock: Clock, decoding: departure.Credits, postprocessing: arrival.Credits
) -> None:
    issued = decoding.issue(AHEAD)
    clock.sleep(0.9)
    assert decoding.away() == AHEAD
    postprocessing.give_back(issued[:1])
    assert decoding.away() == AHEAD - 1


def test_decoding_waits_again_after_a_pause(
    busy: None, clock: Clock, decoding: departure.Credits
) -> None:
    clock.sleep(3600)
    decoding.issue(AHEAD)
    clock.sleep(0.9)
    assert decoding.away() == AHEAD


@pytest.mark.parametrize(("flight", "patience"), [(0.1, 1), (2, 3), (60, 7.5)])
def test_those_that_do_not_arrive_are_given_up_after_one_and_a_half_of_the_longest_flight(
    clock: Clock,
    decoding: departure.Credits,
    postprocessing: arrival.Credits,
    flight: float,
    patience: float,
) -> None:
    fly(clock, decoding, postprocessing, flight)
    decoding.issue(AHEAD)
    clock.sleep(patience - 0.01)
    assert decoding.away() == AHEAD
    clock.sleep(0.02)
    assert decoding.away() == 0


def test_one_is_given_up_sooner_when_others_arrive_that_took_far_less(
    clock: Clock, decoding: departure.Credits, postprocessing: arrival.Credits
) -> None:
    fly(clock, decoding, postprocessing, 0.1)
    decoding.issue(1)
    fly(clock, decoding, postprocessing, 0.1)
    assert decoding.away() == 1
    fly(clock, decoding, postprocessing, 0.06)
    assert decoding.away() == 0


def decode(decoding: departure.Credits, clock: Clock, images: int) -> float:
    """How long it takes to decode one image after the other, of which none arrives."""
    clock.naps.clear()
    for _ in range(images):
        decoding.wait(1)
        decoding.issue(1)
    return sum(clock.naps)


def test_when_nothing_arrives_any_more_a_full_queue_is_let_through_and_then_few(
    busy: None, clock: Clock, decoding: departure.Credits
) -> None:
    assert decode(decoding, clock, AHEAD) == 0
    assert decode(decoding, clock, 1) == pytest.approx(1.5, abs=0.01)
    assert decode(decoding, clock, AHEAD - 1) == 0
    assert decode(decoding, clock, departure.SPARE * AHEAD) == 0
    assert decode(decoding, clock, 10 * AHEAD) > 5


def test_any_arrival_ends_that(
    busy: None, clock: Clock, decoding: departure.Credits, postprocessing: arrival.Credits
) -> None:
    other = departure.Credits(AHEAD)
    fly(clock, other, postprocessing, 1)
    decode(decoding, clock, AHEAD + 1)
    assert decode(decoding, clock, 2 * AHEAD) == 0
    fly(clock, other, postprocessing, 0.1)
    assert decode(decoding, clock, 1) > 1


def test_none_is_given_up_for_waiting_longer_than_the_images_before_a_burst(
    clock: Clock, decoding: departure.Credits, postprocessing: arrival.Credits
) -> None:
    for _ in range(departure.LAST_FLIGHTS):
        fly(clock, decoding, postprocessing, 0.01)
    burst = decoding.issue(50)
    for number in range(50):
        assert decoding.away() == 50 - number
        clock.sleep(0.1)
        postprocessing.give_back(burst[number : number + 1])


def test_flights_of_long_ago_do_not_count(
    clock: Clock, decoding: departure.Credits, postprocessing: arrival.Credits
) -> None:
    fly(clock, decoding, postprocessing, 4)
    for _ in range(departure.LAST_FLIGHTS):
        fly(clock, decoding, postprocessing, 0.1)
    decoding.issue(1)
    clock.sleep(1.01)
    assert decoding.away() == 0


def test_a_lost_credit_does_not_take_the_arrival_of_a_later_one_in_its_place_for_its_own(
    busy: None, clock: Clock, decoding: departure.Credits, postprocessing: arrival.Credits
) -> None:
    decoding.issue(1)
    for _ in range(departure.PLACES):
        fly(clock, decoding, postprocessing, 0.1)
        decoding.away()
    decoding.issue(1)
    assert decoding.flights == deque([100_000_000] * departure.LAST_FLIGHTS)
    assert decoding.away() == 1


def test_two_decoding_processes_count_for_themselves(
    busy: None, clock: Clock, decoding: departure.Credits, postprocessing: arrival.Credits
) -> None:
    other = departure.Credits(AHEAD)
    theirs = other.issue(2)
    decoding.issue(3)
    clock.now += SECOND
    postprocessing.give_back(theirs[:1])
    assert (decoding.away(), other.away()) == (3, 1)


def forged(**changes: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    credit = {"process": 0, "file": 0, "place": 0, "issued": 0} | changes
    return np.array([list(credit.values())])


def test_what_is_no_credit_changes_nothing(
    busy: None, decoding: departure.Credits, postprocessing: arrival.Credits
) -> None:
    (real,) = decoding.issue(1)
    before = decoding.sheet.tolist()
    postprocessing.give_back(real[np.newaxis] + forged(issued=-1))
    postprocessing.give_back(real[np.newaxis] + forged(place=departure.PLACES))
    postprocessing.give_back(np.array([[*real[:2], real[2] + 1, 0]]))
    postprocessing.give_back(np.array([[*real[:2], 0, decoding.sheet[0]]]))
    postprocessing.give_back(forged(process=2**62))
    postprocessing.give_back(forged(process=os.getpid(), file=-1))
    assert decoding.sheet.tolist() == before


def test_a_file_that_is_no_sheet_is_not_written_to(postprocessing: arrival.Credits) -> None:
    file = os.memfd_create("something-else")
    content = np.full(departure.PLACES, 5).tobytes()
    os.write(file, content)
    postprocessing.give_back(forged(process=os.getpid(), file=file, issued=5))
    assert os.pread(file, len(content) + 1, 0) == content
    os.close(file)
