"""The turns of one model in a round: without a server, with more and more clients, overloaded."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from scripts.measuring import triton
from scripts.measuring.figures import (
    BASELINE,
    ENSEMBLE_GRPC,
    ENSEMBLE_HTTP,
    LABELS,
    MODEL_GRPC,
    MODEL_HTTP,
    UPPER_BOUND,
    Baseline,
    BenchmarkPlan,
    Figures,
    Load,
    load_id,
    prefixed,
)
from scripts.measuring.knee import knee
from scripts.measuring.limit import Workers, with_pillow
from scripts.measuring.perf_analyzer import InputTensor, PerfAnalyzer
from scripts.measuring.pictures import picture
from scripts.measuring.subject import Subject
from scripts.measuring.wrk import InferRequest, Wrk
from scripts.repository.steps.preprocess import imaging

SIZE, QUALITY = (500, 375), 91  # about 45 KB
OVERLOAD = 4  # times the throughput at the knee
PREPROCESS = {UPPER_BOUND: imaging.load, BASELINE: with_pillow}

Advance = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """The HOST:PORT of a running server over HTTP and gRPC, and the load generators.

    Without `perf_analyzer` gRPC is not measured.
    """

    http: str
    grpc: str
    wrk: Wrk
    perf_analyzer: PerfAnalyzer | None = None


@dataclass(frozen=True)
class Series:
    """How to load one model over one protocol; `last` is a request that waits for the others."""

    load: Callable[[int], Load]
    last: InferRequest


class Bench:
    """Measures a model round after round.

        with Bench(subject, target, plan) as bench:
            print(bench.round(advance=print))

    `advance` is called with the name of each finished turn; a round has `turns` of them.

    Raises:
        ServerError: a request or a worker failed.
    """

    def __init__(self, subject: Subject, target: Target, plan: BenchmarkPlan) -> None:
        self._target = target
        self._plan = plan
        image = picture(SIZE, quality=QUALITY)
        self._workers = Workers(subject.graph, subject.recipe, image)
        self._numbered = subject.numbered_request(image)
        self._series = {
            MODEL_HTTP: self._http(subject.tensor_request()),
            ENSEMBLE_HTTP: self._http(subject.image_request(image)),
        }
        if analyzer := target.perf_analyzer:
            inputs = {
                MODEL_GRPC: (subject.onnx_name, subject.tensor_input(), MODEL_HTTP),
                ENSEMBLE_GRPC: (subject.name, InputTensor.image(image), ENSEMBLE_HTTP),
            }
            for name, (model, tensor, same) in inputs.items():
                load = partial(
                    analyzer.load, model, target.grpc, tensor, seconds=self._plan.seconds
                )
                self._series[name] = Series(load, self._series[same].last)

    def __enter__(self) -> "Bench":
        self._workers.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._workers.__exit__(*error)

    @property
    def turns(self) -> int:
        """The number of times that a round calls `advance`."""
        baselines = len(PREPROCESS) * (len(self._series) + 3)
        return baselines + len(self._series) * len(self._plan.clients) + 1

    def round(self, advance: Advance) -> Figures:
        """Measure everything once. The baselines take turns between the others; means count."""
        turns = [self._baselines(advance)]
        loads: dict[str, list[Load]] = {}
        for name, series in self._series.items():
            loads[name] = self._sweep(name, series, advance)
            turns.append(self._baselines(advance))
        alone = self._baselines(advance, alone=True)
        overload = self._overload(loads[ENSEMBLE_HTTP])
        advance("overload")
        turns.append(self._baselines(advance))
        figures: Figures = {}
        for name in PREPROCESS:
            figures |= prefixed(name, mean([each[name] for each in turns]))
            figures |= prefixed(f"{name}_alone", alone[name])
        for name, each in loads.items():
            for clients, load in zip(self._plan.clients, each, strict=True):
                figures |= prefixed(load_id(name, clients), load)
        return figures | overload

    def _http(self, request: InferRequest) -> Series:
        load = partial(self._target.wrk.closed_loop, request, seconds=self._plan.seconds)
        return Series(lambda clients: load(clients=clients), request)

    def _baselines(self, advance: Advance, *, alone: bool = False) -> dict[str, Baseline]:
        turns = {}
        for name, preprocess in PREPROCESS.items():
            turns[name] = self._workers.measure(
                seconds=self._plan.seconds, alone=alone, preprocess=preprocess
            )
            advance(f"{LABELS[name]}, one worker" if alone else LABELS[name])
        return turns

    def _sweep(self, name: str, series: Series, advance: Advance) -> list[Load]:
        loads = []
        for clients in self._plan.clients:
            loads.append(series.load(clients))
            triton.settle(self._target.http, series.last)
            advance(f"{LABELS[name]}, {clients} clients")
        return loads

    def _overload(self, loads: Sequence[Load]) -> Figures:
        """Offer several times the throughput at the knee."""
        # Little's law: so many clients divided by the rate is the mean response time.
        clients = self._plan.clients
        found = knee([(load.rate, n / load.rate) for n, load in zip(clients, loads, strict=True)])
        rate = OVERLOAD * loads[found].rate
        overload = self._target.wrk.open_loop(self._numbered, rate=rate, seconds=self._plan.seconds)
        triton.settle(self._target.http, self._series[ENSEMBLE_HTTP].last)
        return prefixed("overload", overload)


def mean(turns: Sequence[Baseline]) -> Baseline:
    """Return the mean of each figure."""
    columns = zip(*map(dataclasses.astuple, turns), strict=True)
    return Baseline(*map(statistics.fmean, columns))
