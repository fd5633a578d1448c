"""The turns of one model in a round: without a server, with more and more clients, overloaded."""

import statistics
from collections.abc import Callable, Sequence

from scripts.measuring import triton
from scripts.measuring.figures import (
    BASELINE,
    ENSEMBLE,
    LABELS,
    MODEL,
    UPPER_BOUND,
    BenchmarkPlan,
    Figures,
    knee,
    load_id,
    prefixed,
)
from scripts.measuring.pictures import picture
from scripts.measuring.subject import Subject
from scripts.measuring.workers import Workers, with_pillow
from scripts.measuring.wrk import Wrk
from scripts.repository.steps.preprocess import imaging

SIZE, QUALITY = (500, 375), 91  # about 45 KB
OVERLOAD = 4  # times the throughput at the knee
PREPROCESS = {UPPER_BOUND: imaging.load, BASELINE: with_pillow}

Advance = Callable[[str], None]


class Bench:
    """Measures a model round after round, until it is closed; a round has `turns` turns.

    Raises:
        ServerError: a request or a worker failed.
    """

    def __init__(self, subject: Subject, wrk: Wrk, plan: BenchmarkPlan) -> None:
        image = picture(SIZE, quality=QUALITY)
        self._wrk = wrk
        self._plan = plan
        self._workers = Workers(subject.graph, subject.recipe, image)
        self._numbered = subject.numbered_request(image)
        self._requests = {MODEL: subject.tensor_request(), ENSEMBLE: subject.image_request(image)}
        self.turns = len(PREPROCESS) * 5 + len(self._requests) * len(plan.clients) + 1

    def close(self) -> None:
        """End the workers."""
        self._workers.close()

    def round(self, advance: Advance) -> Figures:
        """Measure everything once; the baselines are means of turns between the others.

        `advance` is called with the name of each finished turn.
        """
        turns = [self._baselines(advance)]
        figures: Figures = {}
        for series in self._requests:
            figures |= self._sweep(series, advance)
            turns.append(self._baselines(advance))
        for name, turn in self._baselines(advance, alone=True).items():
            figures |= prefixed(f"{name}_alone", turn)
        figures |= self._overload(figures)
        advance("overload")
        turns.append(self._baselines(advance))
        for name in PREPROCESS:
            figures |= prefixed(name, mean([each[name] for each in turns]))
        return figures

    def _baselines(self, advance: Advance, *, alone: bool = False) -> dict[str, Figures]:
        turns = {}
        for name, preprocess in PREPROCESS.items():
            turns[name] = self._workers.measure(self._plan.seconds, preprocess, alone=alone)
            advance(f"{LABELS[name]}, one worker" if alone else LABELS[name])
        return turns

    def _sweep(self, series: str, advance: Advance) -> Figures:
        figures: Figures = {}
        request = self._requests[series]
        for clients in self._plan.clients:
            load = self._wrk.closed_loop(request, clients=clients, seconds=self._plan.seconds)
            triton.settle(self._wrk.address, request)
            figures |= prefixed(load_id(series, clients), load)
            advance(f"{LABELS[series]}, {clients} clients")
        return figures

    def _overload(self, figures: Figures) -> Figures:
        """Offer several times the throughput at the knee."""
        clients = self._plan.clients
        rates = [figures[f"{load_id(ENSEMBLE, each)}_rate"] for each in clients]
        # Little's law: the number of clients divided by the rate is the mean response time.
        found = knee([(rate, n / rate) for n, rate in zip(clients, rates, strict=True)])
        overload = self._wrk.open_loop(
            self._numbered, rate=OVERLOAD * rates[found], seconds=self._plan.seconds
        )
        triton.settle(self._wrk.address, self._requests[ENSEMBLE])
        return prefixed("overload", overload)


def mean(turns: Sequence[Figures]) -> Figures:
    """Return the mean of each figure."""
    return {name: statistics.fmean(each[name] for each in turns) for name in turns[0]}
