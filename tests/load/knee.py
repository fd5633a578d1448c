"""The steps of a rising load, the knee among them, and the table that shows them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scripts.measuring import figures

MAX_FAILED = 0.01  # of a step's requests; beyond it the server is overloaded
# Titles by column.
COLUMNS = {
    "users": "users",
    "rate": "req/s",
    "mean_ms": "mean ms",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "failed": "failed",
    "knee": "",
}


@dataclass(frozen=True)
class LoadStep:
    """The measurements under one load, during `seconds`.

    `times` counts successful requests by response time in milliseconds, `failed` counts others.
    """

    users: int
    seconds: float
    times: Mapping[float, int] = field(default_factory=dict)
    failed: int = 0

    @property
    def succeeded(self) -> int:
        return sum(self.times.values())

    @property
    def rate(self) -> float:
        """Successful requests per second."""
        return self.succeeded / self.seconds if self.seconds else 0.0

    @property
    def mean(self) -> float:
        """The mean response time in milliseconds; NaN without successful requests."""
        total = sum(time * count for time, count in self.times.items())
        return total / self.succeeded if self.succeeded else math.nan

    @property
    def failed_share(self) -> float:
        total = self.succeeded + self.failed
        return self.failed / total if total else 0.0

    def percentile(self, share: float) -> float:
        """Return the response time in milliseconds of this share of requests; NaN without any."""
        remaining = math.ceil(share * self.succeeded)
        for time in sorted(self.times):
            remaining -= self.times[time]
            if remaining <= 0:
                return time
        return math.nan


def knee(steps: Sequence[LoadStep]) -> int | None:
    """Return the index of the knee, or None if the first step already failed.

    Steps are compared by `figures.knee`, up to the first in which more than 1 % of requests failed.
    If the last step is the best, the load was not raised far enough.
    """
    good: list[tuple[float, float]] = []
    for step in steps:
        if step.failed_share > MAX_FAILED or not step.succeeded:
            break
        good.append((step.rate, step.mean))
    return figures.knee(good) if good else None


def rows(steps: Sequence[LoadStep]) -> list[dict[str, str]]:
    """Return the text of each cell by column, with the knee marked."""
    found = knee(steps)
    result = []
    for index, step in enumerate(steps):
        times = (step.mean, step.percentile(0.5), step.percentile(0.99))
        milliseconds = ("-" if math.isnan(each) else f"{each:.1f}" for each in times)
        mark = "<- knee" if index == found and index < len(steps) - 1 else ""
        cells = (str(step.users), f"{step.rate:.1f}", *milliseconds, str(step.failed), mark)
        result.append(dict(zip(COLUMNS, cells, strict=True)))
    return result


def table(steps: Sequence[LoadStep]) -> list[str]:
    """Return the steps as lines of text, and a sentence about the knee."""
    lines = ["  ".join(f"{cell:>8}" for cell in row.values()) for row in [COLUMNS, *rows(steps)]]
    return [*(line.rstrip() for line in lines), summary(steps)]


def summary(steps: Sequence[LoadStep]) -> str:
    """Return a sentence about the knee."""
    found = knee(steps)
    if found is None:
        return "no knee: more than 1 % of requests failed in the first step"
    users = f"{steps[found].users} user{'s' if steps[found].users > 1 else ''}"
    if found == len(steps) - 1:
        return f"no knee up to {users}: throughput still grows; continue with more users"
    rate = f"{steps[found].rate:.1f} requests/s"
    return f"the knee is at {users}, {rate}: beyond it latency grows faster than throughput"
