"""Keeps decoding from running ahead of the graph.

Decoding is the cheaper of the two, so that under overload images would be decoded to wait for the
graph, without end. A ticket goes with each image past the graph to the postprocessing step, whose
`tickets.py` gives it back; while too many are away the decoding process waits, its queue fills, and
Triton refuses what is more. Networks call it credit-based flow control.

A ticket is INT64 [4]: a process, its file that holds the sheet, a place on the sheet, and when it
was issued. The sheet is shared memory, INT64 [2, places]: when each ticket was issued, and when it
arrived, or 0. All times are those of the system's monotonic clock in ns.
"""

import mmap
import os
import time

import numpy as np
import numpy.typing as npt

SHEET = "decoding-tickets"
PLACES = 256
LOOK_AGAIN_S = 0.005
# A request that fails or is cancelled on its way loses its ticket, and nobody says so. One is given
# up after so many times the longest of the last flights, all are when none arrived for that long.
GIVEN_UP_AFTER = 2
LAST_FLIGHTS = 16
LONGEST_NS = 5_000_000_000


class Tickets:
    """Those of this process; `ahead` images of it may be on their way at a time."""

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead
        self.file = os.memfd_create(SHEET)
        sheet = np.zeros((2, PLACES), np.int64)
        os.write(self.file, sheet.tobytes())
        memory = np.frombuffer(mmap.mmap(self.file, 0), np.int64)
        self.issued, self.arrived = memory.reshape(sheet.shape)
        self.place = 0

    def issue(self, count: int) -> npt.NDArray[np.int64]:
        """Write tickets, INT64 [count, 4], for images that were decoded."""
        now = time.monotonic_ns()
        places = [(self.place + index) % PLACES for index in range(count)]
        self.place += count
        self.arrived[places] = 0
        self.issued[places] = now
        return np.array([(os.getpid(), self.file, place, now) for place in places])

    def wait(self) -> None:
        """Return when few enough are away; at once where no ticket ever arrives."""
        while self.away() >= self.ahead:
            time.sleep(LOOK_AGAIN_S)

    def away(self) -> int:
        """Count the tickets that are on their way."""
        last = np.argpartition(self.arrived, -LAST_FLIGHTS)[-LAST_FLIGHTS:]
        flights = (self.arrived - self.issued)[last]
        longest = min(int(flights.max()), LONGEST_NS)
        now = time.monotonic_ns()
        if now - self.arrived.max() > longest:
            return 0
        is_away = (self.arrived == 0) & (self.issued > now - GIVEN_UP_AFTER * longest)
        return int(np.count_nonzero(is_away))
