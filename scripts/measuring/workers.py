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
from scripts.measuring.figures import Figures
from scripts.repository.graphs.speed import single_threaded
from scripts.repository.steps.preprocess import fitting, resizing
from scripts.repository.steps.preprocess.recipe import Recipe
from scripts.repository.tuning import cores

WARM_UP_SECONDS = 0.1  # before each turn; the first one loads the graph

_session = cache(single_threaded)  # of a worker process
Preprocess = Callable[[bytes, Recipe], Image.Image]


def with_pillow(data: bytes, recipe: Recipe) -> Image.Image:
    """Preprocess with Pillow only, resizing no more than the crop needs."""
    image = Image.open(io.BytesIO(data))
    size = image.height, image.width
    return fitting.picture(fitting.Decoded(image, size, size), recipe, resizing.with_pillow)


@dataclass(frozen=True)
class WorkerTurn:
    """One worker's turn in seconds: each image, all preprocessing (CPU time), all graph runs."""

    images: tuple[float, ...]
    preprocess_cpu: float
    graph: float


class Workers:
    """One process for each core that decodes, resizes and runs a graph with one thread.

    The processes stay idle between turns. `graph` takes uint8 [N, height, width, channels];
    `image` is the content of an image file.

    Raises:
        ServerError: a worker failed.
    """

    def __init__(self, graph: Path, recipe: Recipe, image: bytes) -> None:
        self._arguments = (graph, recipe, image)
        spawn = multiprocessing.get_context("spawn")
        ignore = (signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
        # A pool of one process each: every worker gets its turn at the same moment.
        pools = (ProcessPoolExecutor(1, spawn, signal.signal, ignore) for _ in range(cores()))
        self._pools = list(pools)

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)

    def measure(self, seconds: float, preprocess: Preprocess, *, alone: bool = False) -> Figures:
        """Run all workers, or one if `alone`, for some seconds with a preprocessing function."""
        pools = self._pools[:1] if alone else self._pools
        for duration in (WARM_UP_SECONDS, seconds):
            arguments = (*self._arguments, duration, preprocess)
            turns = [pool.submit(_turn, *arguments) for pool in pools]
            try:
                results = [turn.result() for turn in turns]
            except Exception as error:
                raise ServerError(f"a benchmark worker failed: {error}") from error
        return summary(results)


def summary(turns: Sequence[WorkerTurn]) -> Figures:
    """Combine the turns of workers that ran at the same time.

    Returns `rate`, `graph_rate` (if the workers only ran the graph), `p50_ms` of one image, and
    `preprocess_cpu_ms`, the mean CPU time to decode and resize one.
    """
    times = [seconds for turn in turns for seconds in turn.images]
    return {
        "rate": sum(len(turn.images) / sum(turn.images) for turn in turns),
        "graph_rate": sum(len(turn.images) / turn.graph for turn in turns),
        "p50_ms": 1000 * statistics.median(times),
        "preprocess_cpu_ms": 1000 * sum(turn.preprocess_cpu for turn in turns) / len(times),
    }


def _turn(
    graph: Path, recipe: Recipe, image: bytes, seconds: float, preprocess: Preprocess
) -> WorkerTurn:
    """Classify the image for some seconds; at least once."""
    session = _session(graph)
    name = session.get_inputs()[0].name
    images: list[float] = []
    preprocess_cpu = graph_seconds = 0.0
    start = now = time.perf_counter()
    while not images or now - start < seconds:
        begin, cpu = now, time.thread_time()
        decoded = preprocess(image, recipe)
        preprocess_cpu += time.thread_time() - cpu
        pixels = np.asarray(decoded).reshape(1, *recipe.crop, recipe.channels)
        run = time.perf_counter()
        session.run(None, {name: pixels})
        now = time.perf_counter()
        graph_seconds += now - run
        images.append(now - begin)
    return WorkerTurn(tuple(images), preprocess_cpu, graph_seconds)
