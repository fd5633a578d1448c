"""Compares the speed of graphs, engines and precisions, without a server."""

import math
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from scripts.repository.graphs.engines import Run
from scripts.repository.graphs.runner import Array

ROUNDS = 11
TURN_SECONDS = 0.05
MIN_IMAGES = 2  # of each instance in a turn


def speeds(variants: Sequence[Sequence[Run]], image: Array) -> tuple[float, ...]:
    """Measure how many times as fast each variant is as the first one.

    A variant is one instance or several that run at the same time, each with `image`, a batch of
    one, again and again. Variants take turns, because the speed of a machine drifts.

    Returns:
        For each variant, the median ratio of 11 rounds.
    """
    with ThreadPoolExecutor(max(map(len, variants))) as threads:

        def turn(instances: Sequence[Run], count: int) -> float:
            start = time.perf_counter()
            list(threads.map(lambda run: [run(image) for _ in range(count)], instances))
            return time.perf_counter() - start

        for each in variants:
            turn(each, 1)  # the first run allocates memory
        slowest = max(turn(each, 1) for each in variants)
        count = max(MIN_IMAGES, math.ceil(TURN_SECONDS / slowest))
        rounds = [[turn(each, count) for each in variants] for _ in range(ROUNDS)]
    first = [times[0] for times in rounds]
    return tuple(
        statistics.median(before / after for before, after in zip(first, column, strict=True))
        for column in zip(*rounds, strict=True)
    )
