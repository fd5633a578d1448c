"""Thresholds that a load test must meet."""


def missed(
    max_error_rate: float | None, max_p99_ms: float | None, requests: int, failures: int, p99: float
) -> list[str]:
    """Return a line for each missed threshold; rates are from 0 to 1, None disables a threshold."""
    if (max_error_rate, max_p99_ms) != (None, None) and not requests:
        return ["no request was sent"]
    lines = []
    rate = failures / max(requests, 1)
    if max_error_rate is not None and rate > max_error_rate:
        lines.append(f"error rate {rate:.2%} is above {max_error_rate:.2%}")
    if max_p99_ms is not None and p99 > max_p99_ms:
        lines.append(f"p99 {p99:g} ms is above {max_p99_ms:g} ms")
    return lines
