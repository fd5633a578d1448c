"""The figures of a benchmark: their units, their identifiers and their labels."""

from collections.abc import Sequence
from dataclasses import dataclass

# Figures by identifier, such as `ensemble_http_8_clients_rate` and `baseline_p50_ms`. Rates are in
# images per second, `_ms` is in milliseconds, and shares are from 0 to 1. Figures that could not be
# measured, such as a percentile without answers, are missing.
Figures = dict[str, float]

BASELINE = "baseline"
UPPER_BOUND = "upper_bound"
MODEL = "model_http"
ENSEMBLE = "ensemble_http"
SERIES = (MODEL, ENSEMBLE)

LABELS = {
    MODEL: "model only, HTTP",
    ENSEMBLE: "ensemble, HTTP",
    BASELINE: "baseline: plain loop",
    UPPER_BOUND: "upper bound: same code without a server",
    "ensemble_peak_to_upper_bound": "ensemble: peak throughput / upper bound",
    "model_peak_to_graph_only": "model only: peak throughput / onnxruntime without a server",
    "one_client_p50_to_upper_bound": "one client: p50 / p50 of one upper-bound worker",
    "one_client_p50_to_baseline": "one client: p50 / p50 of one baseline worker",
    "preprocess_to_baseline": "preprocessing: CPU of the step's code / CPU of Pillow",
    "overload_rate_to_peak": "overload: throughput / peak throughput",
    "overload_refused_share": "overload: share of requests refused",
    "overload_failed_share": "overload: share of requests failed",
    "overload_p99_to_p50": "overload: p99 / p50 of successful requests",
    "overload_offered_rate": "offered (images/s)",
    "overload_rate": "answered (images/s)",
    "overload_p50_ms": "p50 of answers (ms)",
    "overload_p99_ms": "p99 of answers (ms)",
    "overload_refusal_p50_ms": "p50 of refusals (ms)",
}


@dataclass(frozen=True)
class BenchmarkPlan:
    """Seconds per turn, number of rounds, and numbers of concurrent clients, ascending."""

    seconds: float = 4
    rounds: int = 5
    clients: tuple[int, ...] = (1, 2, 4, 8, 16)


def load_id(series: str, clients: int) -> str:
    """Return the identifier that the figures of a load begin with."""
    return f"{series}_{clients}_clients"


def prefixed(prefix: str, figures: Figures) -> Figures:
    """Return figures with longer identifiers."""
    return {f"{prefix}_{name}": value for name, value in figures.items()}


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
