"""Two versions of a classifier's graph, run in turn by onnxruntime itself, without a server."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto

from scripts.measuring.comparison import Comparison, Variant

ROUNDS = 11
IMAGES = 2  # one by one, by each graph in each round


def speedup(before: ModelProto, after: ModelProto, size: int) -> float:
    """Tell how many times as fast `after` is, with one thread on single random images.

    Both take the same FP32 [N, 3, size, size]. Returns the median over 11 rounds.
    """
    image = np.random.default_rng(0).standard_normal((1, 3, size, size), dtype=np.float32)
    comparison = Comparison(
        [Variant("before", _rate(before, image)), Variant("after", _rate(after, image))]
    )
    for _ in comparison.run(ROUNDS):
        pass
    return comparison.ratio("after")


def single_threaded(model: Path | bytes) -> onnxruntime.InferenceSession:
    """Load a graph to run on the CPU with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _rate(model: ModelProto, image: npt.NDArray[np.float32]) -> Callable[[], float]:
    """Load a graph, warm it up, and make what runs it and returns its images per second."""
    session = single_threaded(model.SerializeToString())
    feeds = {session.get_inputs()[0].name: image}
    session.run(None, feeds)

    def rate() -> float:
        start = time.perf_counter()
        for _ in range(IMAGES):
            session.run(None, feeds)
        return IMAGES / (time.perf_counter() - start)

    return rate
