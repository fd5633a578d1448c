"""The figures of a benchmark: their units, their identifiers and their labels."""

import dataclasses
from dataclasses import dataclass

# Figures of one round by identifier, such as `ensemble_http_8_clients_rate` and `baseline_rate`.
# Rates are in images per second. Identifiers that end in `_ms` are in milliseconds.
Figures = dict[str, float]

BASELINE = "baseline"
UPPER_BOUND = "upper_bound"
MODEL_HTTP = "model_http"
ENSEMBLE_HTTP = "ensemble_http"
MODEL_GRPC = "model_grpc"
ENSEMBLE_GRPC = "ensemble_grpc"
SERIES = (MODEL_HTTP, ENSEMBLE_HTTP, MODEL_GRPC, ENSEMBLE_GRPC)

LABELS = {
    MODEL_HTTP: "model only, HTTP",
    ENSEMBLE_HTTP: "ensemble, HTTP",
    MODEL_GRPC: "model only, gRPC",
    ENSEMBLE_GRPC: "ensemble, gRPC",
    BASELINE: "baseline: plain loop",
    UPPER_BOUND: "upper bound: same code without a server",
    "ensemble_peak_to_upper_bound": "ensemble: peak throughput / upper bound",
    "model_peak_to_graph_only": "model only: peak throughput / onnxruntime without a server",
    "one_client_p50_to_upper_bound": "one client: p50 / p50 of one upper-bound worker",
    "one_client_p50_to_baseline": "one client: p50 / p50 of one baseline worker",
    "preprocess_cpu_to_baseline": "preprocessing: CPU of the step's code / CPU of Pillow",
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


@dataclass(frozen=True)
class Load:
    """One turn of closed-loop clients: each sends its next image when it has its answer.

    `rate` is in images per second; the percentiles are response times at the client.
    """

    rate: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Baseline:
    """One turn of worker processes without a server.

    `rate` is in images per second over all workers. `graph_rate` is the rate if workers only ran
    the graph. `p50_ms` is the time of one image; `preprocess_cpu_ms` is the mean CPU time to decode
    and resize one.
    """

    rate: float
    graph_rate: float
    p50_ms: float
    preprocess_cpu_ms: float


@dataclass(frozen=True)
class Overload:
    """One turn of an open loop that offers more images than the server can answer.

    Rates are in images per second; shares are of all requests. A refusal is HTTP 503, a failure any
    other error. Percentiles are None if there was no such response.
    """

    offered_rate: float
    rate: float
    refused_share: float
    failed_share: float
    p50_ms: float | None
    p99_ms: float | None
    refusal_p50_ms: float | None


def load_id(series: str, clients: int) -> str:
    """Return the identifier that the figures of a load begin with."""
    return f"{series}_{clients}_clients"


def prefixed(prefix: str, values: Load | Baseline | Overload) -> Figures:
    """Return the known values by identifier."""
    fields = dataclasses.asdict(values).items()
    return {f"{prefix}_{name}": value for name, value in fields if value is not None}
