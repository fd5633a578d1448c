"""What a load test must keep to pass."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """The largest share of requests that may fail, 0 to 1, and the longest 99th percentile.

    None is no threshold.
    """

    error_rate: float | None = None
    p99_ms: float | None = None

    def missed(self, *, requests: int, failures: int, p99_ms: float) -> list[str]:
        """Say in a line each which are missed."""
        if self == Thresholds():
            return []
        if not requests:
            return ["no request was sent"]
        lines = []
        rate = failures / requests
        if self.error_rate is not None and rate > self.error_rate:
            lines.append(f"error rate {rate:.2%} is above {self.error_rate:.2%}")
        if self.p99_ms is not None and p99_ms > self.p99_ms:
            lines.append(f"p99 {p99_ms:g} ms is above {self.p99_ms:g} ms")
        return lines
