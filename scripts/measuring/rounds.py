"""The turns of one model in a round: without a server, with more and more clients, overloaded."""

import itertools
import statistics
from collections.abc import Callable, Sequence

from scripts.measuring import triton
from scripts.measuring.figures import (
    BASELINE,
    ENSEMBLE,
    LABELS,
    MODEL,
    OTHER,
    UPPER_BOUND,
    BenchmarkPlan,
    Figures,
    knee,
    load_id,
    prefixed,
)
from scripts.measuring.pictures import picture
from scripts.measuring.subject import Subject
from scripts.measuring.workers import Workers, loops
from scripts.measuring.wrk import Wrk

SIZE, QUALITY = (500, 375), 91  # about 45 KB
OVERLOAD = 4  # times the throughput at the knee

Advance = Callable[[str], None]


class Bench:
    """Measures a model round after round, until it is closed; a round has `turns` turns.

    `other` is a server on another build of the model, whose ensemble takes turns with this one's.
    `precisions` are those of the loops without a server.

    Raises:
        ServerError: a request or a worker failed.
    """

    def __init__(
        self, subject: Subject, wrk: Wrk, plan: BenchmarkPlan, other: Wrk | None = None
    ) -> None:
        image = picture(SIZE, quality=QUALITY)
        request = subject.image_request(image)
        self._plan = plan
        self._workers = Workers(subject.graph, subject.recipe, image)
        self._numbered = subject.numbered_request(image)
        self._targets = {MODEL: (wrk, subject.tensor_request()), ENSEMBLE: (wrk, request)}
        if other:
            self._targets[OTHER] = other, request
        self._loops = loops(subject.build.precision)
        self.precisions = {name: loop.precision for name, loop in self._loops.items()}
        self.turns = len(self._loops) * 4 + len(self._targets) * len(plan.clients) + 1

    def close(self) -> None:
        """End the workers."""
        self._workers.close()

    def round(self, advance: Advance) -> Figures:
        """Measure everything once; the figures without a server are means of several turns.

        `advance` is called with the name of each finished turn.
        """
        turns = [self._bare(advance)]
        figures = self._sweep([MODEL], advance)
        turns.append(self._bare(advance))
        alone = self._bare(advance, alone=True)
        figures |= self._sweep([series for series in self._targets if series != MODEL], advance)
        figures |= self._overload(figures)
        advance("overload")
        turns.append(self._bare(advance))
        means = {name: mean([each[name] for each in turns]) for name in self._loops}
        limit = max(means.keys() - {BASELINE}, key=lambda name: means[name]["rate"])
        means[UPPER_BOUND], alone[UPPER_BOUND] = means[limit], alone[limit]
        for name, turn in means.items():
            figures |= prefixed(name, turn) | prefixed(f"{name}_alone", alone[name])
        return figures

    def _bare(self, advance: Advance, *, alone: bool = False) -> dict[str, Figures]:
        turns = {}
        for name, loop in self._loops.items():
            turns[name] = self._workers.measure(loop, self._plan.seconds, alone=alone)
            advance(f"{LABELS[name]}, one worker" if alone else LABELS[name])
        return turns

    def _sweep(self, names: Sequence[str], advance: Advance) -> Figures:
        """Measure series with more and more clients, in turns at each number."""
        figures: Figures = {}
        for clients, series in itertools.product(self._plan.clients, names):
            wrk, request = self._targets[series]
            load = wrk.closed_loop(request, clients=clients, seconds=self._plan.seconds)
            triton.settle(wrk.address, request)
            figures |= prefixed(load_id(series, clients), load)
            advance(f"{LABELS[series]}, {clients} clients")
        return figures

    def _overload(self, figures: Figures) -> Figures:
        """Offer several times the throughput at the knee."""
        clients = self._plan.clients
        rates = [figures[f"{load_id(ENSEMBLE, each)}_rate"] for each in clients]
        # Little's law: the number of clients divided by the rate is the mean response time.
        found = knee([(rate, n / rate) for n, rate in zip(clients, rates, strict=True)])
        wrk, request = self._targets[ENSEMBLE]
        rate = OVERLOAD * rates[found]
        overload = wrk.open_loop(self._numbered, rate=rate, seconds=self._plan.seconds)
        triton.settle(wrk.address, request)
        return prefixed("overload", overload)


def mean(turns: Sequence[Figures]) -> Figures:
    """Return the mean of each figure."""
    return {name: statistics.fmean(each[name] for each in turns) for name in turns[0]}
