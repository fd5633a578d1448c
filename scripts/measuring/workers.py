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
from scripts.measuring.figures import BASELINE, Figures
from scripts.repository.graphs import engines
from scripts.repository.steps.preprocess import fitting, imaging, resizing
from scripts.repository.steps.preprocess.recipe import Recipe
from scripts.repository.tuning import cores

WARM_UP_SECONDS = 0.1  # before each turn; an engine's first one loads the graph

_load = cache(engines.load)  # of a worker process
Preprocess = Callable[[bytes, Recipe], Image.Image]


def with_pillow(data: bytes, recipe: Recipe) -> Image.Image:
    """Preprocess with Pillow only, resizing no more than the crop needs."""
    image = Image.open(io.BytesIO(data))
    size = image.height, image.width
    return fitting.picture(fitting.Decoded(image, size, size), recipe, resizing.with_pillow)


@dataclass(frozen=True)
class Loop:
    """Preprocesses an image and runs a graph, again and again, in an engine that has one thread."""

    preprocess: Preprocess
    engine: str
    precision: str


def loops(precision: str) -> dict[str, Loop]:
    """Return the baseline, and the step's code with each installed engine by the engine's name.

    `precision` is that of the graph. Only OpenVINO can run it in bf16, if the CPU has bfloat16;
    otherwise it runs in fp32.
    """

    def loop(preprocess: Preprocess, engine: str) -> Loop:
        if precision == "bf16" and not (engine == "openvino" and engines.has_bfloat16()):
            return Loop(preprocess, engine, "fp32")
        return Loop(preprocess, engine, precision)

    ours = {engine: loop(imaging.load, engine) for engine in engines.installed()}
    return {BASELINE: loop(with_pillow, "onnxruntime")} | ours


@dataclass(frozen=True)
class WorkerTurn:
    """One worker's turn in seconds: each image, all preprocessing (CPU time), all graph runs."""

    images: tuple[float, ...]
    preprocess_cpu: float
    graph: float


class Workers:
    """One process for each core, which all run a loop for the duration of a turn.

    `graph` takes uint8 [N, height, width, channels]; `image` is the content of an image file.

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

    def measure(self, loop: Loop, seconds: float, *, alone: bool = False) -> Figures:
        """Run a loop in all workers, or in one if `alone`, for some seconds."""
        pools = self._pools[:1] if alone else self._pools
        for duration in (WARM_UP_SECONDS, seconds):
            turns = [pool.submit(_turn, loop, *self._arguments, duration) for pool in pools]
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


def _turn(loop: Loop, graph: Path, recipe: Recipe, image: bytes, seconds: float) -> WorkerTurn:
    """Classify the image for some seconds; at least once."""
    run = _load(loop.engine, graph, precision=loop.precision)
    images: list[float] = []
    preprocess_cpu = graph_seconds = 0.0
    start = now = time.perf_counter()
    while not images or now - start < seconds:
        begin, cpu = now, time.thread_time()
        decoded = loop.preprocess(image, recipe)
        preprocess_cpu += time.thread_time() - cpu
        pixels = np.asarray(decoded).reshape(1, *recipe.crop, recipe.channels)
        decoded_at = time.perf_counter()
        run(pixels)
        now = time.perf_counter()
        graph_seconds += now - decoded_at
        images.append(now - begin)
    return WorkerTurn(tuple(images), preprocess_cpu, graph_seconds)
