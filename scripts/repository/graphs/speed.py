"""Compares the speed of two graphs in onnxruntime, without a server."""

import statistics
import time
from dataclasses import replace
from pathlib import Path

import onnxruntime

from scripts.repository.graphs.prepare import Prepared
from scripts.repository.graphs.runner import LOG_NOTHING, Array, session
from scripts.repository.graphs.samples import images
from scripts.repository.steps.preprocess.recipe import Size

ROUNDS = 11
IMAGES = 2  # per graph and round


def speedup(before: Prepared, after: Prepared, size: Size) -> float:
    """Measure how many times as fast `after` is as `before`, on one thread and single images.

    Both have the same signature; `size` is the height and width of the image. They are run in turn,
    because the speed of a machine drifts.

    Returns:
        The median ratio of 11 rounds.
    """
    signature = replace(before.signature, height=size[0], width=size[1])
    image = images(before.model, signature, 1)
    sessions = [session(each.model, _one_thread()) for each in (before, after)]
    for each in sessions:
        _seconds(each, signature.input, image)  # the first run allocates memory
    rounds = [[_seconds(each, signature.input, image) for each in sessions] for _ in range(ROUNDS)]
    return statistics.median(slow / fast for slow, fast in rounds)


def single_threaded(model: Path | bytes) -> onnxruntime.InferenceSession:
    """Load a graph to run on the CPU with one thread."""
    return onnxruntime.InferenceSession(model, _one_thread(), providers=["CPUExecutionProvider"])


def _one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_NOTHING
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options


def _seconds(session: onnxruntime.InferenceSession, name: str, image: Array) -> float:
    start = time.perf_counter()
    for _ in range(IMAGES):
        session.run(None, {name: image})
    return time.perf_counter() - start
