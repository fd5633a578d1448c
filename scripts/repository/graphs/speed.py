"""Compares the speed of two graphs in onnxruntime, without a server."""

import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import ModelProto

from scripts.repository.steps.preprocess.recipe import Size

ROUNDS = 11
IMAGES = 2  # per graph and round


def speedup(before: ModelProto, after: ModelProto, size: Size) -> float:
    """Measure how many times as fast `after` is as `before`, on one thread and single images.

    Both graphs take the same FP32 [N, 3, height, width]. They are run in turn, because the speed
    of a machine drifts.

    Returns:
        The median ratio of 11 rounds.
    """
    image = np.random.default_rng(0).standard_normal((1, 3, *size), dtype=np.float32)
    sessions = [single_threaded(model.SerializeToString()) for model in (before, after)]
    for session in sessions:
        _seconds(session, image)  # the first run allocates memory
    rounds = [[_seconds(session, image) for session in sessions] for _ in range(ROUNDS)]
    return statistics.median(slow / fast for slow, fast in rounds)


def single_threaded(model: Path | bytes) -> onnxruntime.InferenceSession:
    """Load a graph to run on the CPU with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _seconds(
    session: onnxruntime.InferenceSession, image: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> float:
    feeds = {session.get_inputs()[0].name: image}
    start = time.perf_counter()
    for _ in range(IMAGES):
        session.run(None, feeds)
    return time.perf_counter() - start
