"""The summary line at the end of the command's output."""

import time
from array import array

import numpy as np

from ._results import Classification


class Summary:
    """Counts the results of `total` images and records their durations."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._start = time.perf_counter()
        self.failed = 0
        self._seconds = array("d")

    def add(self, result: Classification) -> None:
        """Count one image."""
        if result.error:
            self.failed += 1
        else:
            self._seconds.append(result.seconds)

    def __str__(self) -> str:
        classified = len(self._seconds)
        done = classified + self.failed
        images = f"{done} image{'' if done == 1 else 's'}"
        if done < self._total:
            images = f"{done} of {self._total} images"
        rate = classified / (time.perf_counter() - self._start)
        counts = f"{images}, {self.failed} failed, {rate:.1f} images/s"
        if not classified:
            return counts
        p50, p99 = np.percentile(self._seconds, [50, 99]) * 1000
        return f"{counts}, p50 {p50:.1f} ms, p99 {p99:.1f} ms"
