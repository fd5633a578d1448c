"""The knee of a load curve; the benchmark and the load test both use it."""

from collections.abc import Sequence


def knee(points: Sequence[tuple[float, float]]) -> int:
    """Return the index of the knee among `points` of (throughput, mean response time).

    The knee is the point with the greatest power, throughput divided by mean response time. Up to
    it throughput grows faster than response time; beyond it response time grows faster
    (L. Kleinrock, "Power and Deterministic Rules of Thumb for Probabilistic Problems in Computer
    Communications", ICC 1979; R. Jain, "The Art of Computer Systems Performance Analysis", 1991,
    chapter 3).
    """
    powers = [rate / time if time else 0.0 for rate, time in points]
    return powers.index(max(powers))
