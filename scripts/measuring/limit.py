"""What the machine can do without a server: worker processes that do nothing but the work."""

import io
import multiprocessing
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.embedded import ServerError
from scripts.measuring.figures import Bare
from scripts.repository.graphs.speed import single_threaded
from scripts.repository.steps.preprocess import imaging, resizing
from scripts.repository.steps.preprocess.recipe import Recipe
from scripts.repository.tuning import cores

STOP_SECONDS = 10
WARM_UP_IMAGES = 3

Preprocess = Callable[[bytes, Recipe], Image.Image]


def plainly(data: bytes, recipe: Recipe) -> Image.Image:
    """Preprocess with Pillow alone, though no more than is kept."""
    image = Image.open(io.BytesIO(data))
    return resizing.with_pillow(image, recipe.crop, imaging.kept((0, 0, *image.size), recipe))


@dataclass(frozen=True)
class Turn:
    """One worker's turn, in seconds: of each image the whole, and in all the CPU and the graph."""

    images: tuple[float, ...]
    imaging_cpu: float
    graph: float


class Workers:
    """One process for each core, that decodes, resizes and runs a graph with one thread.

        with Workers(graph, recipe, image) as workers:
            print(workers.measure(seconds=4).rate)

    They are kept, and wait for their next turn without using the CPU. `graph` takes uint8
    [N, crop, crop, 3], `image` is an encoded one.

    Raises:
        ServerError: a worker fails.
    """

    def __init__(self, graph: Path, recipe: Recipe, image: bytes) -> None:
        self._arguments = (graph, recipe, image)
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._pipes: list[Connection] = []

    def __enter__(self) -> "Workers":
        context = multiprocessing.get_context("spawn")
        for _ in range(cores()):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()  # which ends its worker
        for process in self._processes:
            process.join(STOP_SECONDS)
            process.kill()

    def measure(
        self, *, seconds: float, alone: bool = False, preprocess: Preprocess = imaging.load
    ) -> Bare:
        """Let all workers, or one of them alone, work for some seconds.

        They decode and resize as the step does, or as another function of a module.
        """
        pipes = self._pipes[:1] if alone else self._pipes
        for pipe in pipes:
            pipe.send((seconds, preprocess))
        return summary([_receive(pipe) for pipe in pipes])


def summary(turns: Sequence[Turn]) -> Bare:
    """Put together what several workers did at the same time."""
    count = sum(len(turn.images) for turn in turns)
    times = [seconds for turn in turns for seconds in turn.images]
    return Bare(
        workers=len(turns),
        rate=sum(len(turn.images) / sum(turn.images) for turn in turns),
        graph_rate=sum(len(turn.images) / turn.graph for turn in turns),
        p50=1000 * statistics.median(times),
        imaging_ms=1000 * sum(turn.imaging_cpu for turn in turns) / count,
    )


def _receive(pipe: Connection) -> Turn:
    try:
        turn = pipe.recv()
    except EOFError:
        raise ServerError("a worker of the limit ended; is there memory for all of them?") from None
    if isinstance(turn, Turn):
        return turn
    raise ServerError(f"a worker of the limit failed: {turn}")


def _work(pipe: Connection, graph: Path, recipe: Recipe, image: bytes) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for who started it
    with suppress(EOFError, BrokenPipeError):
        try:
            worker = _Worker(graph, recipe, image)
            while True:
                pipe.send(worker.turn(*pipe.recv()))
        except EOFError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits is told
            pipe.send(str(error))


class _Worker:
    def __init__(self, graph: Path, recipe: Recipe, image: bytes) -> None:
        self._session = single_threaded(graph)
        self._input = self._session.get_inputs()[0].name
        self._recipe = recipe
        self._image = image
        for _ in range(WARM_UP_IMAGES):
            self._one(imaging.load)

    def turn(self, seconds: float, preprocess: Preprocess) -> Turn:
        images: list[float] = []
        imaging_cpu = graph = 0.0
        start = now = time.perf_counter()
        while now - start < seconds:
            before = now
            cpu, run = self._one(preprocess)
            now = time.perf_counter()
            images.append(now - before)
            imaging_cpu += cpu
            graph += run
        return Turn(tuple(images), imaging_cpu, graph)

    def _one(self, preprocess: Preprocess) -> tuple[float, float]:
        """Classify the image; return the CPU seconds of decoding, and the graph's seconds."""
        cpu = time.thread_time()
        image = preprocess(self._image, self._recipe)
        cpu = time.thread_time() - cpu
        pixels = np.asarray(image)[np.newaxis]
        run = time.perf_counter()
        self._session.run(None, {self._input: pixels})
        return cpu, time.perf_counter() - run
