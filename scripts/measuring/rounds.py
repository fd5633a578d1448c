"""One model's turns in a round: with no server, with every number of clients, with too many."""

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import psutil

from scripts.measuring import photograph, processes
from scripts.measuring.figures import (
    ENSEMBLE,
    LIMIT,
    MODEL_ONLY,
    PLAIN,
    Bare,
    Inside,
    Load,
    Overload,
    Round,
    Settings,
)
from scripts.measuring.limit import Workers, plainly
from scripts.measuring.perf_analyzer import Input, PerfAnalyzer
from scripts.measuring.pictures import picture
from scripts.measuring.subject import Subject
from scripts.measuring.triton_statistics import Counters, Triton, between
from scripts.measuring.wrk import Wrk
from scripts.repository.steps.preprocess import imaging

SIZE, QUALITY = "500x375", 91  # some 45 KB
LARGE = "4000x3000"
OBSERVED = 8  # clients while the server's insides are looked at
OVERLOAD = 4  # times the images/s of the knee
GRPC = "{} over gRPC"
BARE = {LIMIT: imaging.load, PLAIN: plainly}  # what the workers do by turns

Advance = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """A running server: where it is and what asks it.

    `process` is None where it is not to be seen, `perf_analyzer` where gRPC is not measured.
    """

    triton: Triton
    wrk: Wrk
    grpc: str
    process: psutil.Process | None = None
    perf_analyzer: PerfAnalyzer | None = None


class Bench:
    """Measures a model beside the limit, round after round.

        with Bench(subject, target, settings) as bench:
            print(bench.round(advance=print))

    `advance` is called with the name of each turn that is over; there are `turns` in a round.

    Raises:
        ServerError: a request fails, or a worker.
    """

    def __init__(self, subject: Subject, target: Target, settings: Settings) -> None:
        self._subject = subject
        self._target = target
        self._settings = settings
        image = picture(SIZE, "JPEG", QUALITY)
        self._large = picture(LARGE, "JPEG")
        self._workers = Workers(subject.graph, subject.recipe, image)
        self._requests = {
            MODEL_ONLY: subject.tensor_request(),
            ENSEMBLE: subject.image_request(image),
        }
        self._told_apart = subject.told_apart(image)
        self._inputs = {
            MODEL_ONLY: (subject.onnx_name, subject.tensor_input()),
            ENSEMBLE: (subject.name, Input.image(image)),
        }
        self._resources = ExitStack()

    def __enter__(self) -> "Bench":
        self._resources.enter_context(self._workers)
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    @property
    def turns(self) -> int:
        """How often a round calls `advance`."""
        protocols = 2 if self._target.perf_analyzer else 1
        return 5 * len(BARE) + 2 + 2 * protocols * len(self._settings.clients)

    @property
    def observed(self) -> int:
        """The number of clients while the server's insides are looked at: 8, or the next below."""
        few = [each for each in self._settings.clients if each <= OBSERVED]
        return max(few, default=min(self._settings.clients))

    def round(self, advance: Advance) -> Round:
        """Measure everything once. The limit is the mean of its turns among the others."""
        bare = [self._bare(advance)]
        loads = {MODEL_ONLY: self._sweep(MODEL_ONLY, advance)}
        bare.append(self._bare(advance))
        alone, plain_alone = self._bare(advance, alone=True)
        loads[ENSEMBLE], inside = self._look_inside(advance)
        bare.append(self._bare(advance))
        loads |= self._over_grpc(advance)
        overload = self._overload(knee(loads[ENSEMBLE]).rate)
        advance("overload")
        large = photograph.measure(self._large, self._subject.recipe)
        advance("large photograph")
        bare.append(self._bare(advance))
        limit, plain = map(mean, zip(*bare, strict=True))
        return Round(limit, plain, alone, plain_alone, loads, inside, overload, large)

    def _bare(self, advance: Advance, *, alone: bool = False) -> tuple[Bare, ...]:
        """Let the workers take a turn with each kind of preprocessing."""
        turns = []
        for name, preprocess in BARE.items():
            turns.append(
                self._workers.measure(
                    seconds=self._settings.seconds, alone=alone, preprocess=preprocess
                )
            )
            advance(f"{name}, one worker" if alone else name)
        return tuple(turns)

    def _sweep(
        self, what: str, advance: Advance, clients: Sequence[int] | None = None
    ) -> tuple[Load, ...]:
        request = self._requests[what]
        loads = []
        for number in self._settings.clients if clients is None else clients:
            load = self._target.wrk.closed_loop(
                request, clients=number, seconds=self._settings.seconds
            )
            self._target.triton.settle(request)
            loads.append(load)
            advance(f"{what}, {number} clients")
        return tuple(loads)

    def _look_inside(self, advance: Advance) -> tuple[tuple[Load, ...], Inside]:
        """Load the ensemble, and read the server's counters on both sides of one turn."""
        index = self._settings.clients.index(self.observed)
        fewer, more = self._settings.clients[:index], self._settings.clients[index + 1 :]
        before = self._sweep(ENSEMBLE, advance, fewer)
        counters, cpu = self._counters(), self._cpu()
        load = self._sweep(ENSEMBLE, advance, [self.observed])
        inside = self._since(counters, cpu)
        return before + load + self._sweep(ENSEMBLE, advance, more), inside

    def _since(self, before: dict[str, Counters], cpu_before: dict[str, float]) -> Inside:
        after, cpu_after = self._counters(), self._cpu()
        name, steps = self._subject.name, self._subject.steps
        images = after[name].requests - before[name].requests
        return Inside(
            clients=self.observed,
            steps={step: between(before[step], after[step]) for step in steps},
            cpu_ms=processes.milliseconds_an_image(cpu_before, cpu_after, images),
        )

    def _counters(self) -> dict[str, Counters]:
        names = (self._subject.name, *self._subject.steps)
        return {name: self._target.triton.counters(name) for name in names}

    def _cpu(self) -> dict[str, float]:
        process = self._target.process
        return processes.cpu_seconds(process, self._subject.steps) if process else {}

    def _over_grpc(self, advance: Advance) -> dict[str, tuple[Load, ...]]:
        """Repeat all loads with perf_analyzer."""
        generator = self._target.perf_analyzer
        if not generator:
            return {}
        return {
            GRPC.format(what): self._grpc_sweep(generator, what, advance) for what in self._requests
        }

    def _grpc_sweep(self, generator: PerfAnalyzer, what: str, advance: Advance) -> tuple[Load, ...]:
        model, tensor = self._inputs[what]
        loads = []
        for number in self._settings.clients:
            load = generator.load(
                model,
                self._target.grpc,
                tensor,
                concurrency=number,
                seconds=self._settings.seconds,
            )
            self._target.triton.settle(self._requests[what])
            loads.append(load)
            advance(f"{GRPC.format(what)}, {number} clients")
        return tuple(loads)

    def _overload(self, bearable: float) -> Overload:
        overload = self._target.wrk.open_loop(
            self._told_apart, rate=OVERLOAD * bearable, seconds=self._settings.seconds
        )
        self._target.triton.settle(self._requests[ENSEMBLE])
        return overload


def knee(loads: Sequence[Load]) -> Load:
    """Find the load from which on more clients bring later answers rather than more of them."""
    return max(loads, key=lambda load: load.power)


def mean(turns: Sequence[Bare]) -> Bare:
    """Put turns of the same workers together."""
    return replace(
        turns[0],
        rate=statistics.fmean(each.rate for each in turns),
        graph_rate=statistics.fmean(each.graph_rate for each in turns),
        p50=statistics.fmean(each.p50 for each in turns),
        imaging_ms=statistics.fmean(each.imaging_ms for each in turns),
    )
