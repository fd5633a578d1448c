"""Confidence intervals, tests and calibration: the statistics of evaluations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Share:
    """How many of some images have a property, as a fraction with a 95 % confidence interval.

    The interval is Wilson's score interval (E. B. Wilson, "Probable inference, the law of
    succession, and statistical inference", JASA 22, 1927). It is for images that were drawn at
    random from those that the fraction is meant for.

    Raises:
        ValueError: `total` is 0, or `count` is not from 0 to `total`.
    """

    count: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.total or not self.total:
            raise ValueError(f"{self.count} of {self.total} is not a share")

    @property
    def value(self) -> float:
        """The fraction, from 0 to 1."""
        return self.count / self.total

    @property
    def low(self) -> float:
        """The lower bound of the interval."""
        return self._interval[0]

    @property
    def high(self) -> float:
        """The upper bound of the interval."""
        return self._interval[1]

    @property
    def _interval(self) -> tuple[float, float]:
        from scipy.stats import binomtest  # noqa: PLC0415 - slow to import

        test = binomtest(self.count, self.total)
        low, high = test.proportion_ci(CONFIDENCE, method="wilson")
        return float(low), float(high)

    def __str__(self) -> str:
        return f"{self.value:.2%} [{self.low:.2%}, {self.high:.2%}]"


def calibration_error(
    confidences: npt.ArrayLike, are_right: npt.ArrayLike, bins: int = 15
) -> float:
    """Return the expected calibration error, from 0 to 1.

    The images are put into bins of equal width by the probability of their best class. The result
    is the mean difference between this probability and the share of right answers in a bin,
    weighted with the bin's images (Guo et al., "On calibration of modern neural networks", 2017).

    Args:
        confidences: the probability of the best class of each image [images], at least one.
        are_right: whether this class is the right one [images].
        bins: the number of bins; the paper has 15.
    """
    probabilities = np.asarray(confidences, np.float64)
    right = np.asarray(are_right, np.float64)
    # A bin contains its upper end, and the first one 0, too.
    places = np.clip(np.ceil(probabilities * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=right - probabilities, minlength=bins)
    return float(np.abs(gaps).sum() / len(probabilities))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    It is the probability of a difference at least this large between two classifiers of the same
    accuracy, by chance (Q. McNemar, "Note on the sampling error of the difference between
    correlated proportions or percentages", Psychometrika 12, 1947; exact: the binomial test).

    Args:
        only_first: the images that only the first classifier has right.
        only_second: the images that only the second classifier has right.
    """
    from scipy.stats import binomtest  # noqa: PLC0415 - slow to import

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number.

    The probability that chance alone brings any of them below 0.05 is then at most 0.05
    (S. Holm, "A simple sequentially rejective multiple test procedure", 1979).
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = largest
    return adjusted
