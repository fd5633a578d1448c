"""The load test's options, its checks of answers, the knee, its reports and its thresholds."""

import itertools
import math
from argparse import ArgumentTypeError
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.images import BROKEN
from tests.load import answers, knee, options, traffic
from tests.load.answers import Answer, NotRefused, Refused, WrongAnswer
from tests.load.knee import LoadStep
from tests.load.options import Options
from tests.load.thresholds import missed


def test_options_are_read_from_the_text_of_a_form() -> None:
    given = {"model": "birds", "sizes": "320x240, 10x20", "top_k": "3", "steps": "1, 2,4"}
    read = Options.read(given | {"broken": "0.25", "unrelated": "field"})
    assert (read.model, read.top_k, read.broken, read.steps) == ("birds", 3, 0.25, (1, 2, 4))
    assert read.sizes == ((320, 240), (10, 20))
    assert (read.batch_size, read.step_seconds) == (1, 15.0)


@pytest.mark.parametrize(
    ("dest", "text", "message"),
    [
        ("model", " ", "--model: must not be empty"),
        ("sizes", "large", "--sizes: 'large' is not a size such as 320x240"),
        ("sizes", "0x10", "--sizes: 0x10 is not the size of a JPEG that the server accepts"),
        ("sizes", "65000x65000", "--sizes: 65000x65000 is not the size of a JPEG"),
        ("batch_size", "0", "--batch-size: must be at least 1"),
        ("top_k", "many", "--top-k: 'many' is not a whole number"),
        ("broken", "1.5", "--broken: must be from 0 to 1"),
        ("broken", "nan", "--broken: must be from 0 to 1"),
        ("timeout", "inf", "--timeout: must be a finite number above 0"),
        ("step_seconds", "0", "--step-seconds: must be a finite number above 0"),
        ("steps", "4,2", "--steps: '4,2' is not ascending; write steps such as 1,2,4,8"),
        ("steps", "1,x", "--steps: 'x' is not a whole number"),
    ],
)
def test_an_invalid_option_is_named(dest: str, text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are compared
        Options.read({dest: text})
    assert str(caught.value).startswith(message)
    option = next(each for each in options.OPTIONS if each.dest == dest)
    with pytest.raises(ArgumentTypeError):
        option.checked(text)


@pytest.mark.parametrize("option", options.OPTIONS, ids=lambda option: option.dest)
def test_every_default_equals_what_the_parser_keeps(option: options.Option) -> None:
    assert option.checked(str(option.default)) == option.default


@pytest.mark.parametrize(
    ("host", "named", "expected"),
    [
        (None, {}, ["grpc"]),
        ("localhost:8001", {}, ["grpc"]),
        ("localhost:8000", {}, ["http"]),
        ("http://triton", {}, ["http"]),
        ("grpcs://triton", {}, ["grpc"]),
        ("triton:9000", {"http"}, ["http"]),
        ("triton", {"grpc", "http"}, ["grpc", "http"]),
    ],
)
def test_the_host_selects_the_protocol_unless_users_are_named(
    host: str | None, named: set[str], expected: list[str]
) -> None:
    assert options.protocols(host, {each: each in named for each in ("grpc", "http")}) == expected


def test_a_host_of_another_protocol_than_the_named_users_is_rejected() -> None:
    with pytest.raises(ValueError, match="contradicts protocol http"):
        options.protocols("grpc://triton", {"grpc": False, "http": True})
    with pytest.raises(ValueError, match="invalid URL"):
        options.protocols("ftp://triton", {"grpc": False, "http": False})


def test_each_size_starts_one_batch_and_the_next_sizes_fill_it() -> None:
    single = traffic.good([(32, 24), (16, 16)], 1)
    assert [request.name for request in single] == ["32x24", "16x16"]
    batches = traffic.good([(32, 24), (16, 16)], 3)
    assert {request.name for request in batches} == {"3 images"}
    assert batches[1].pictures == ("16x16", "32x24", "16x16")
    assert batches[1].images[0] == single[1].images[0]


def test_broken_batches_have_one_broken_image_at_changing_positions() -> None:
    good = traffic.good([(32, 24)], 2)
    broken = traffic.broken(good)
    assert [request.broken for request in broken] == [0, 1, 0, 1, 0]
    for request in broken:
        assert request.broken is not None
        assert request.images[request.broken] in BROKEN.values()
        assert request.images[1 - request.broken] == good[0].images[0]


@pytest.mark.parametrize(("share", "expected"), [(0, 0), (0.1, 10), (1 / 3, 33), (1, 100)])
def test_broken_requests_are_spread_evenly(share: float, expected: int) -> None:
    broken = [number for number in range(100) if traffic.is_broken(number, share)]
    assert abs(len(broken) - expected) <= 1
    gaps = {after - before for before, after in itertools.pairwise(broken)}
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


def answer(probabilities: Any = ((0.6, 0.4), (0.9, 0.1)), **others: Any) -> Answer:
    rows = np.array(probabilities, np.float32)
    ids = np.tile(np.arange(rows.shape[1], dtype=np.int32), (rows.shape[0], 1))
    labels = np.full(rows.shape, b"a bird", dtype=np.object_)
    return Answer(**({"class_ids": ids, "probabilities": rows, "labels": labels} | others))


def test_a_complete_answer_passes() -> None:
    answers.check(answer(), images=2, top_k=2)
    answers.check(answer(((0.5, 0.5),)), images=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (answer(((0.6, 0.4),)), "for 2 images"),
        (answer(class_ids=np.zeros(4, np.int32)), "for 2 images"),
        (answer(((0.6,), (0.9,))), "1 classes for top_k 2"),
        (answer(labels=np.full((2, 1), b"a bird", dtype=np.object_)), "differ in shape"),
        (answer(((0.4, 0.6), (0.9, 0.1))), "not in descending order"),
        (answer(((1.5, 0.4), (0.9, 0.1))), "not between 0 and 1"),
        (answer(((0.6, -0.1), (0.9, 0.1))), "not between 0 and 1"),
        (answer(((0.6, math.nan), (0.9, 0.1))), "not between 0 and 1"),
        (answer(labels=np.full((2, 2), b" ", dtype=np.object_)), "a label is empty"),
    ],
)
def test_a_wrong_answer_is_described(wrong: Answer, message: str) -> None:
    with pytest.raises(WrongAnswer, match=message):
        answers.check(wrong, images=2, top_k=2)


def test_classes_that_tie_with_the_best_count_as_top_classes() -> None:
    first = answer(((0.5, 0.49), (0.9, 0.1)))
    assert answers.top_classes(first) == (frozenset({0, 1}), frozenset({0}))


def test_a_refusal_must_name_the_broken_images_position() -> None:
    answers.check_refusal(Refused("400: IMAGE[3]: not an image"), 3)
    with pytest.raises(NotRefused):
        answers.check_refusal(Refused("400: IMAGE[13]: not an image"), 3)


def curve(points: Mapping[int, tuple[float, float]], failed: int = 0) -> list[LoadStep]:
    """Steps of one second each: users to (requests/s, response time in ms)."""
    return [
        LoadStep(users, 1.0, {time: int(rate)}, failed) for users, (rate, time) in points.items()
    ]


def closed_loop(capacity: float, alone: float) -> dict[int, tuple[float, float]]:
    """A server with a response time of `alone` ms that queues beyond `capacity` requests/s."""
    rates = {users: min(users / alone * 1000, capacity) for users in (1, 2, 4, 8, 16, 32)}
    return {users: (rate, users / rate * 1000) for users, rate in rates.items()}


def test_the_knee_of_an_ideal_server_is_where_it_reaches_capacity() -> None:
    steps = curve(closed_loop(capacity=800, alone=10))
    found = knee.knee(steps)
    assert found is not None
    assert steps[found].users == 8


def test_the_knee_of_a_smooth_curve_is_where_latency_grows_faster() -> None:
    steps = curve({1: (100, 10), 2: (190, 10.5), 4: (300, 13.3), 8: (360, 22.2), 16: (370, 43.2)})
    assert knee.knee(steps) == 2


def test_the_knee_is_the_first_step_if_more_load_only_adds_latency() -> None:
    assert knee.knee(curve({1: (100, 10), 2: (101, 20), 4: (100, 40)})) == 0


def test_there_is_no_knee_if_the_last_step_is_the_best() -> None:
    steps = curve({1: (100, 10), 2: (200, 10), 4: (390, 10.3)})
    assert knee.knee(steps) == 2
    assert "no knee up to 4 users" in knee.table(steps)[-1]
    assert not any("<- knee" in line for line in knee.table(steps))


def test_steps_with_refusals_are_beyond_the_knee() -> None:
    steps = curve({1: (100, 10), 2: (150, 13)})
    refusing = [LoadStep(4, 1.0, {5.0: 200}, failed=400), LoadStep(8, 1.0, {5.0: 200}, failed=800)]
    assert knee.knee([*steps, *refusing]) == 1
    assert knee.knee(refusing) is None
    assert "no knee" in knee.table(refusing)[-1]
    assert knee.knee([]) is None


def test_percentiles_and_means_count_successful_requests() -> None:
    step = LoadStep(1, 2.0, {30.0: 1, 10.0: 98, 20.0: 1}, failed=25)
    assert (step.percentile(0.5), step.percentile(0.99), step.percentile(1)) == (10, 20, 30)
    assert step.mean == pytest.approx(10.3)
    assert (step.rate, step.failed_share) == (50, 0.2)
    assert math.isnan(LoadStep(1, 1.0).percentile(0.5))


def test_the_table_marks_the_knee_and_shows_steps_with_failures_only() -> None:
    lines = knee.table([*curve({1: (100, 10), 2: (110, 18)}), LoadStep(4, 1.0, {}, failed=7)])
    assert lines[1].split() == ["1", "100.0", "10.0", "10.0", "10.0", "0", "<-", "knee"]
    assert lines[3].split() == ["4", "0.0", "-", "-", "-", "7"]
    assert lines[-1].startswith("the knee is at 1 user, 100.0 requests/s")


def test_each_missed_threshold_is_a_line() -> None:
    assert missed(0.01, 200, requests=100, failures=1, p99=200) == []
    assert missed(0.01, 200, requests=100, failures=2, p99=210) == [
        "error rate 2.00% is above 1.00%",
        "p99 210 ms is above 200 ms",
    ]
    assert missed(0.01, 200, requests=0, failures=0, p99=0) == ["no request was sent"]
    assert missed(None, None, requests=0, failures=0, p99=0) == []
