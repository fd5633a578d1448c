"""Keeps decoding from running ahead of the graph.

Decoding is the cheaper of the two, so that under overload images would be decoded to wait for the
graph, without end. A ticket goes with each image past the graph to the postprocessing step, whose
`tickets.py` gives it back; while too many are away the decoding process waits, its queue fills, and
Triton refuses what is more. Networks call it credit-based flow control.

A ticket is INT64 [4]: a process, its file that holds the sheet, a place on the sheet, and when it
was issued. The sheet is shared memory, INT64 [places]: when each ticket was issued or, negative,
when it arrived. All times are those of the system's monotonic clock in ns.
"""

import mmap
import os
import time
from collections import deque

import numpy as np
import numpy.typing as npt

SHEET = "decoding-tickets"
PLACES = 256
LOOK_AGAIN_S = 0.005
# A request that fails or is cancelled on its way loses its ticket, and nobody says so. It is known
# by others that arrive when it has been away for so many times the longest of their flights.
GIVEN_UP_AFTER = 2
LAST_FLIGHTS = 16
# When none arrives for as long as the longest of the flights, within these limits, all are lost, or
# the client addresses this step by itself: nothing is held until one arrives. The lower limit is
# that of TCP's retransmission timer (RFC 6298), for the same reason: while load rises, the flights
# that are known are shorter than those to come.
LEAST_PATIENCE_NS = 1_000_000_000
MOST_PATIENCE_NS = 5_000_000_000


class Tickets:
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
        self.is_silent = False

    def issue(self, count: int) -> npt.NDArray[np.int64]:
        """Write tickets, INT64 [count, 4], for images that were decoded."""
        now = time.monotonic_ns()
        tickets = []
        for _ in range(count):
            self.place = (self.place + 1) % PLACES
            self.sheet[self.place] = now
            self.on_their_way[self.place] = now
            tickets.append((self.process, self.file, self.place, now))
        return np.array(tickets, np.int64)

    def wait(self) -> None:
        """Return when few enough are away, or all seem to be lost."""
        while len(self.on_their_way) >= self.ahead and self.away() >= self.ahead:
            time.sleep(LOOK_AGAIN_S)

    def away(self) -> int:
        """Count the tickets that are on their way."""
        self._take_back()
        now = time.monotonic_ns()
        longest = min(max(self.flights), MOST_PATIENCE_NS)
        patience = max(longest, LEAST_PATIENCE_NS)
        lost = max(self.last_arrival - GIVEN_UP_AFTER * longest, now - GIVEN_UP_AFTER * patience)
        away = [issued for issued in self.on_their_way.values() if issued > lost]
        if away and now - max(self.last_arrival, min(away)) > patience:
            self.is_silent = True
        return 0 if self.is_silent else len(away)

    def _take_back(self) -> None:
        for place, issued in list(self.on_their_way.items()):
            if (arrived := -self.sheet[place]) > 0:
                del self.on_their_way[place]
                self.flights.append(arrived - issued)
                self.last_arrival = max(self.last_arrival, arrived)
                self.is_silent = False
