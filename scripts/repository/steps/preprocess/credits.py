"""Keeps decoding from running ahead of the graph.

Decoding is the cheaper of the two, so that under overload images would be decoded to wait for the
graph, without end. A credit goes with each image past the graph to the postprocessing step, whose
`credits.py` gives it back; while too many are away the decoding process waits, its queue fills, and
Triton refuses what is more. Networks call it credit-based flow control.

A credit is INT64 [4]: a process, its file that holds the sheet, a place on the sheet, and when it
was issued. The sheet is shared memory, INT64 [places]: when each credit was issued or, negative,
when it arrived. Its place 0 says when any process's credit arrived last. All times are those of the
system's monotonic clock in ns.
"""

import mmap
import os
import time
from collections import deque

import numpy as np
import numpy.typing as npt

SHEET = "decoding-credits"
PLACES = 256
LOOK_AGAIN_S = 0.005
LAST_FLIGHTS = 64
MOST_FLIGHT_NS = 5_000_000_000
# A request that fails or is cancelled on its way loses its credit, and nobody says so. One is given
# up when it is away for so many times the longest of the last flights, or was so at the last
# arrival. Where none arrives the graph may be busy with cancelled images, of which no more must be
# added than it takes away: as many credits are given up as would have arrived, or fewer.
GIVEN_UP_AFTER = 1.5
# No sooner than this, though, while nothing arrives: as load rises the known flights are shorter
# than those to come. It is the least of TCP's retransmission timer (RFC 6298), for the same reason.
LEAST_PATIENCE_NS = 1_000_000_000
# When one issued since the last arrival of any is given up, the graph has nothing to do, and what
# waits to be decoded was cancelled. So many times `ahead` is let through to come to what was not.
SPARE = 4


class Credits:
    """Those of this process; `ahead` images of it may be on their way at a time."""

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead
        self.process = os.getpid()
        self.file = os.memfd_create(SHEET)
        os.write(self.file, bytes(8 * PLACES))
        self.sheet = memoryview(mmap.mmap(self.file, 0)).cast("q")
        self.place = 0
        self.on_their_way: dict[int, int] = {}  # place to when it was issued
        self.flights = deque([0], maxlen=LAST_FLIGHTS)
        self.last_arrival = 0
        self.heard = 0  # what place 0 said when `spare` was last filled
        self.spare = SPARE * ahead

    def issue(self, count: int) -> npt.NDArray[np.int64]:
        """Write credits, INT64 [count, 4], for images that were decoded."""
        now = time.monotonic_ns()
        granted = []
        for _ in range(count):
            self.place = self.place % (PLACES - 1) + 1
            self.sheet[self.place] = now
            self.on_their_way[self.place] = now
            granted.append((self.process, self.file, self.place, now))
        return np.array(granted, np.int64)

    def wait(self, count: int) -> None:
        """Return when few enough are away to decode the images of `count` requests."""
        while (
            len(self.on_their_way) >= self.ahead
            and self.away() >= self.ahead
            and not self._spend(count)
        ):
            time.sleep(LOOK_AGAIN_S)

    def away(self) -> int:
        """Count the credits that are on their way and not given up."""
        self._take_back()
        lost = self._lost_until()
        return sum(issued > lost for issued in self.on_their_way.values())

    def _lost_until(self) -> float:
        """Tell up to when the credits were issued that are given up."""
        patience = GIVEN_UP_AFTER * min(max(self.flights), MOST_FLIGHT_NS)
        return max(
            self.last_arrival - patience,
            time.monotonic_ns() - max(patience, LEAST_PATIENCE_NS),
        )

    def _spend(self, count: int) -> bool:
        """Let some more through, where the graph has nothing to do, until the spare is used up."""
        if self.sheet[0] > self.heard:
            self.heard, self.spare = self.sheet[0], SPARE * self.ahead
        if self.spare <= 0:
            return False
        lost = self._lost_until()
        is_idle = any(self.heard < issued <= lost for issued in self.on_their_way.values())
        if is_idle:
            self.spare -= count
        return is_idle

    def _take_back(self) -> None:
        for place, issued in list(self.on_their_way.items()):
            if (arrived := -self.sheet[place]) > 0:
                del self.on_their_way[place]
                self.flights.append(arrived - issued)
                self.last_arrival = max(self.last_arrival, arrived)
