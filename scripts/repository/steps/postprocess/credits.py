"""Returns credits to the preprocessing workers; their `credits.py` describes the flow control."""

import mmap
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

COUNTERS = "/memfd:decoding-credits"


class CreditReturns:
    """The shared counters of all preprocessing workers."""

    def __init__(self) -> None:
        self.counters: dict[tuple[int, int], memoryview] = {}

    def give_back(self, returned: npt.NDArray[np.int64]) -> None:
        """Record in the workers' counters that credits, INT64 [N, 4], have returned.

        Each worker sees its own credits, and all workers see the time of the last return. Clients
        can call the step directly and send any numbers: a credit that was never issued, or was
        returned before, changes nothing.
        """
        for process, file, slot, issued in returned.tolist():
            with suppress(OSError, IndexError):
                counters = self._counters(process, file)
                if slot > 0 and 0 < issued == counters[slot]:
                    self._record(counters, slot)

    def _record(self, counters: memoryview, slot: int) -> None:
        now = time.monotonic_ns()
        counters[slot] = -now
        for each in self.counters.values():
            each[0] = now

    def _counters(self, process: int, file: int) -> memoryview:
        if (process, file) not in self.counters:
            self.counters[process, file] = _open(Path(f"/proc/{process}/fd/{file}"))
        return self.counters[process, file]


def _open(path: Path) -> memoryview:
    if not str(path.readlink()).startswith(COUNTERS):
        raise FileNotFoundError(path)
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
