"""The figures of a benchmark: their units, their identifiers and their labels."""

from collections.abc import Sequence
from dataclasses import dataclass

# Figures by identifier, such as `ensemble_http_8_clients_rate` and `baseline_p50_ms`. Rates are in
# images per second, `_ms` is in milliseconds, and shares are from 0 to 1. Figures that could not be
# measured, such as a percentile without answers, are missing.
Figures = dict[str, float]

BASELINE = "baseline"
UPPER_BOUND = "upper_bound"  # the fastest engine of each round
OWN_ENGINE = "own_engine"  # the one that serves the model
MODEL = "model_http"
ENSEMBLE = "ensemble_http"
SERIES = (MODEL, ENSEMBLE)
OTHER = "other_http"  # the ensemble of the build that it is measured against

LABELS = {
    MODEL: "model only",
    ENSEMBLE: "ensemble",
    OTHER: "ensemble of the other build",
    BASELINE: "baseline: Pillow and onnxruntime",
    "onnxruntime": "step's code, onnxruntime",
    "openvino": "step's code, OpenVINO",
    "ensemble_peak_to_upper_bound": "ensemble: peak throughput / upper bound",
    "model_peak_to_graph_only": "model only: peak throughput / upper bound's graph",
    "one_client_p50_to_baseline": "one client: p50 / one baseline worker's",
    "one_client_p50_to_upper_bound": "one client: p50 / one upper-bound worker's",
    "one_client_p50_to_own_engine": "one client: p50 / one worker's of the same engine",
    "preprocess_to_baseline": "preprocessing: CPU of the step's code / Pillow's",
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
