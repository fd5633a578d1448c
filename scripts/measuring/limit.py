"""Worker processes that do the work of the ensemble without a server."""

import io
import multiprocessing
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.embedded import ServerError
from scripts.measuring.figures import Baseline
from scripts.repository.graphs.speed import single_threaded
from scripts.repository.steps.preprocess import imaging, resizing
from scripts.repository.steps.preprocess.recipe import Recipe
from scripts.repository.tuning import cores

WARM_UP_IMAGES = 3

Preprocess = Callable[[bytes, Recipe], Image.Image]


def with_pillow(data: bytes, recipe: Recipe) -> Image.Image:
    """Preprocess with Pillow only, resizing no more than the crop needs."""
    image = Image.open(io.BytesIO(data))
    return resizing.with_pillow(image, recipe.crop, imaging.kept((0, 0, *image.size), recipe))


@dataclass(frozen=True)
class WorkerTurn:
    """One worker's turn in seconds: of each image, of all preprocessing (CPU), and of the graph."""

    images: tuple[float, ...]
    preprocess_cpu: float
    graph: float


class Workers:
    """One process for each core that decodes, resizes and runs a graph with one thread.

        with Workers(graph, recipe, image) as workers:
            print(workers.measure(seconds=4).rate)

    The processes stay idle between turns. `graph` takes uint8 [N, crop, crop, 3]; `image` is the
    content of an image file.

    Raises:
        ServerError: a worker failed.
    """

    def __init__(self, graph: Path, recipe: Recipe, image: bytes) -> None:
        self._arguments = (graph, recipe, image)
        context = multiprocessing.get_context("spawn")
        # A pool of one process each: every worker gets its turn at the same moment.
        self._pools = [
            ProcessPoolExecutor(1, context, initializer=_ignore_interrupts) for _ in range(cores())
        ]

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)

    def measure(
        self, *, seconds: float, alone: bool = False, preprocess: Preprocess = imaging.load
    ) -> Baseline:
        """Run all workers, or one if `alone`, for some seconds.

        `preprocess` is a module's function; it defaults to the preprocessing step's.
        """
        pools = self._pools[:1] if alone else self._pools
        try:
            for loaded in [pool.submit(_load, *self._arguments) for pool in pools]:
                loaded.result()  # or one worker would start its turn before another has loaded
            turns = [pool.submit(_turn, *self._arguments, seconds, preprocess) for pool in pools]
            return summary([turn.result() for turn in turns])
        except Exception as error:
            raise ServerError(f"a benchmark worker failed: {error}") from error


def summary(turns: Sequence[WorkerTurn]) -> Baseline:
    """Combine the turns of workers that ran at the same time."""
    count = sum(len(turn.images) for turn in turns)
    times = [seconds for turn in turns for seconds in turn.images]
    return Baseline(
        rate=sum(len(turn.images) / sum(turn.images) for turn in turns),
        graph_rate=sum(len(turn.images) / turn.graph for turn in turns),
        p50_ms=1000 * statistics.median(times),
        preprocess_cpu_ms=1000 * sum(turn.preprocess_cpu for turn in turns) / count,
    )


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C


def _load(graph: Path, recipe: Recipe, image: bytes) -> None:
    _worker(graph, recipe, image)


def _turn(
    graph: Path, recipe: Recipe, image: bytes, seconds: float, preprocess: Preprocess
) -> WorkerTurn:
    classify = _worker(graph, recipe, image)
    images: list[float] = []
    preprocess_cpu = graph_seconds = 0.0
    start = now = time.perf_counter()
    while now - start < seconds:
        before = now
        cpu, run = classify(preprocess)
        now = time.perf_counter()
        images.append(now - before)
        preprocess_cpu += cpu
        graph_seconds += run
    return WorkerTurn(tuple(images), preprocess_cpu, graph_seconds)


Classify = Callable[[Preprocess], tuple[float, float]]


@cache
def _worker(graph: Path, recipe: Recipe, image: bytes) -> Classify:
    """Load the graph, warm it up, and return a function that classifies the image.

    The function returns the CPU seconds of preprocessing and the seconds of the graph.
    """
    session = single_threaded(graph)
    name = session.get_inputs()[0].name

    def classify(preprocess: Preprocess) -> tuple[float, float]:
        cpu = time.thread_time()
        decoded = preprocess(image, recipe)
        cpu = time.thread_time() - cpu
        pixels = np.asarray(decoded)[np.newaxis]
        start = time.perf_counter()
        session.run(None, {name: pixels})
        return cpu, time.perf_counter() - start

    for _ in range(WARM_UP_IMAGES):
        classify(imaging.load)
    return classify
