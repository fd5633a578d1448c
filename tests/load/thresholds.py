"""Thresholds that a load test must meet."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """The maximum share of failed requests, 0 to 1, and 99th percentile; None disables one."""

    error_rate: float | None = None
    p99_ms: float | None = None

    def missed(self, *, requests: int, failures: int, p99_ms: float) -> list[str]:
        """Return a line for each missed threshold."""
        lines = []
        if self != Thresholds() and not requests:
            lines.append("no request was sent")
        rate = failures / max(requests, 1)
        if self.error_rate is not None and rate > self.error_rate:
            lines.append(f"error rate {rate:.2%} is above {self.error_rate:.2%}")
        if self.p99_ms is not None and p99_ms > self.p99_ms:
            lines.append(f"p99 {p99_ms:g} ms is above {self.p99_ms:g} ms")
        return lines
