"""Where a load is best: more of it makes answers late and brings few more of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MAX_FAILED = 0.01  # of a step's requests, or it is no load that the server bears


@dataclass(frozen=True)
class Step:
    """What was measured under one load.

    `times` counts the requests that succeeded by their response time in milliseconds; `failed`
    counts the others, and `seconds` is how long both were counted.
    """

    users: int
    seconds: float
    times: Mapping[float, int] = field(default_factory=dict)
    failed: int = 0

    @property
    def succeeded(self) -> int:
        """The number of requests that did."""
        return sum(self.times.values())

    @property
    def rate(self) -> float:
        """Successful requests per second."""
        return self.succeeded / self.seconds if self.seconds else 0.0

    @property
    def mean(self) -> float:
        """The mean response time in milliseconds; NaN if nothing succeeded."""
        total = sum(time * count for time, count in self.times.items())
        return total / self.succeeded if self.succeeded else math.nan

    @property
    def failed_share(self) -> float:
        """0 to 1."""
        every = self.succeeded + self.failed
        return self.failed / every if every else 0.0

    @property
    def power(self) -> float:
        """Requests per second for each second that one takes."""
        return self.rate / self.mean * 1000 if self.succeeded and self.mean else 0.0

    def percentile(self, share: float) -> float:
        """The response time in milliseconds that this share of requests kept; NaN if none did."""
        wanted = math.ceil(share * self.succeeded)
        for time in sorted(self.times):
            wanted -= self.times[time]
            if wanted <= 0:
                return time
        return math.nan


def knee(steps: Sequence[Step]) -> int | None:
    """Find the step that is the knee, as a place in `steps`, which rise; None if there is none.

    It is the step of the greatest power, throughput divided by mean response time: up to there
    throughput grows by a larger part than response time, and from there on by a smaller one
    (L. Kleinrock, "Power and Deterministic Rules of Thumb for Probabilistic Problems in Computer
    Communications", ICC 1979; R. Jain, "The Art of Computer Systems Performance Analysis", 1991,
    chapter 3, calls its throughput the knee capacity). From the first step on in which more than
    1 % of the requests fail, no step is the knee. The last of all steps may be: then it only says
    that the load has not been raised far enough.
    """
    bearable: list[Step] = []
    for step in steps:
        if step.failed_share > MAX_FAILED or not step.succeeded:
            break
        bearable.append(step)
    if not bearable:
        return None
    powers = [step.power for step in bearable]
    return powers.index(max(powers))


def table(steps: Sequence[Step]) -> list[str]:
    """Write the steps as lines of text, with the knee marked and put into words."""
    found = knee(steps)
    lines = [f"{'users':>6} {'req/s':>9} {'mean ms':>9} {'p50 ms':>9} {'p99 ms':>9} {'failed':>8}"]
    for place, step in enumerate(steps):
        times = (step.mean, step.percentile(0.5), step.percentile(0.99))
        milliseconds = " ".join(
            "        -" if math.isnan(each) else f"{each:9.1f}" for each in times
        )
        mark = "  <- knee" if place == found and found < len(steps) - 1 else ""
        lines.append(f"{step.users:6} {step.rate:9.1f} {milliseconds} {step.failed:8}{mark}")
    return [*lines, _words(steps, found)]


def _words(steps: Sequence[Step], found: int | None) -> str:
    if found is None:
        return "no knee: more than 1 % of requests failed from the first step on"
    users = f"{steps[found].users} user{'s' if steps[found].users > 1 else ''}"
    if found == len(steps) - 1:
        return f"no knee up to {users}: more load still pays, so go on with more users"
    return (
        f"the knee is at {users}, {steps[found].rate:.1f} requests/s: from there on answers get "
        "slower by more than they get more"
    )
