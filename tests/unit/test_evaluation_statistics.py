"""Intervals, tests and calibration, against published examples."""

import numpy as np
import pytest

from scripts.evaluation.statistics import Share, calibration_error, holm, mcnemar


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_those_of_newcombes_table(
    count: int, total: int, low: float, high: float
) -> None:
    # R. G. Newcombe, "Two-sided confidence intervals for the single proportion", 1998, method 3.
    share = Share(count, total)
    assert (share.low, share.high) == pytest.approx((low, high), abs=5e-5)
    assert share.value == count / total


@pytest.mark.parametrize(("count", "total"), [(1, 0), (0, 0), (3, 2), (-1, 5)])
def test_what_is_not_a_share_is_refused(count: int, total: int) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        Share(count, total)


def test_a_share_is_written_with_its_interval() -> None:
    assert str(Share(81, 263)) == "30.80% [25.53%, 36.62%]"


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(2, 9, 0.06543), (9, 2, 0.06543), (0, 0, 1), (5, 5, 1), (0, 10, 2 / 1024)],
)
def test_mcnemars_test_is_exact(only_first: int, only_second: int, p: float) -> None:
    # The first is the example of the R package exact2x2.
    assert mcnemar(only_first, only_second) == pytest.approx(p, abs=5e-6)


def test_p_values_are_adjusted_as_r_does() -> None:
    # p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.8]) == [1, 1]
    assert holm([]) == []


def test_calibration_error_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    confidences = rng.random(5000)
    are_right = rng.random(5000) < confidences**2
    expected = 0.0
    for number in range(15):
        inside = (confidences > number / 15) & (confidences <= (number + 1) / 15)
        gap = abs(are_right[inside].mean() - confidences[inside].mean())
        expected += inside.sum() / 5000 * gap
    assert calibration_error(confidences, are_right) == pytest.approx(expected)
    assert expected > 0.1


@pytest.mark.parametrize(
    ("confidences", "are_right", "error"),
    [
        ([1.0, 1.0], [True, True], 0),
        ([1.0, 1.0], [False, False], 1),
        ([0.5, 0.5], [True, False], 0),
        ([0.0, 1.0000001], [False, True], 0),  # FP32 softmax can exceed 1
        ([0.9, 0.3], [True, True], 0.4),
    ],
)
def test_calibration_error_of_few_images(
    confidences: list[float], are_right: list[bool], error: float
) -> None:
    assert calibration_error(confidences, are_right) == pytest.approx(error, abs=1e-6)
