"""Credit-based flow control: limits how many decoded images wait for the graph.

Decoding is cheaper than inference, so under overload decoded images would pile up in front of the
graph without bound. Each decoded image therefore carries a credit through the graph to the
postprocessing step, whose `credits.py` returns it. A worker that has reached its limit of
outstanding credits stops decoding; then its queue fills up, and Triton rejects further requests.

A credit is INT64 [4]: the id of the process, the file descriptor of its counters, a slot in the
counters, and the time of issue. The counters are shared memory, INT64 [slots]. A slot holds the
time at which its credit was issued or, negated, returned; slot 0 holds the time of the last return
to any process. All times are nanoseconds of the system's monotonic clock.
"""

import mmap
import os
import time
from collections import deque

import numpy as np
import numpy.typing as npt

COUNTERS = "decoding-credits"
SLOTS = 256
POLL_SECONDS = 0.005
ROUND_TRIPS = 64
MAX_ROUND_TRIP_NS = 5_000_000_000
# A request that fails or is cancelled inside the ensemble loses its credit, and nothing reports it.
# A credit expires once its age, now or at the last return, exceeds this multiple of the longest
# recent round trip. If nothing returns, the graph may be busy with cancelled images; the factor
# ensures that no more credits expire than would have returned, so that its queue does not grow.
EXPIRY_FACTOR = 1.5
# The shortest expiry while nothing returns: when load rises, recent round trips are shorter than
# the next ones. The value is the minimum of TCP's retransmission timeout (RFC 6298, 2.4), which
# faces the same problem.
MIN_EXPIRY_NS = 1_000_000_000
# When a credit expires that was issued after the last return to any process, the graph is idle and
# the requests at the head of the queue were cancelled. This many times the limit may then be
# decoded without waiting, to get past them.
PROBE_FACTOR = 4


class CreditLimit:
    """Issues the credits of this process, and waits while `limit` of them are outstanding."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.process = os.getpid()
        self.file = os.memfd_create(COUNTERS)
        os.write(self.file, bytes(8 * SLOTS))
        self.counters = memoryview(mmap.mmap(self.file, 0)).cast("q")
        self.slot = 0
        self.issued: dict[int, int] = {}  # slot to time of issue
        self.round_trips = deque([0], maxlen=ROUND_TRIPS)
        self.last_return = 0
        self.probes_renewed_at = 0  # slot 0 when `probes` was last reset
        self.probes = PROBE_FACTOR * limit

    def issue(self, count: int) -> npt.NDArray[np.int64]:
        """Issue credits, INT64 [count, 4], for images that were decoded."""
        now = time.monotonic_ns()
        issued = []
        for _ in range(count):
            self.slot = self.slot % (SLOTS - 1) + 1
            self.counters[self.slot] = now
            self.issued[self.slot] = now
            issued.append((self.process, self.file, self.slot, now))
        return np.array(issued, np.int64)

    def wait(self, count: int) -> None:
        """Block until the images of `count` requests may be decoded."""
        while (
            len(self.issued) >= self.limit
            and self.outstanding() >= self.limit
            and not self._may_probe(count)
        ):
            time.sleep(POLL_SECONDS)

    def outstanding(self) -> int:
        """Count the credits that have neither returned nor expired."""
        self._collect_returns()
        expired = self._expired_until()
        return sum(issued > expired for issued in self.issued.values())

    def _expired_until(self) -> float:
        """Return the time of issue, in ns, up to which credits have expired."""
        expiry = EXPIRY_FACTOR * min(max(self.round_trips), MAX_ROUND_TRIP_NS)
        return max(
            self.last_return - expiry,
            time.monotonic_ns() - max(expiry, MIN_EXPIRY_NS),
        )

    def _may_probe(self, count: int) -> bool:
        """Use up probes for `count` requests if the graph is idle and probes are left."""
        if self.counters[0] > self.probes_renewed_at:
            self.probes_renewed_at, self.probes = self.counters[0], PROBE_FACTOR * self.limit
        if self.probes <= 0:
            return False
        expired = self._expired_until()
        last_return = self.probes_renewed_at
        is_idle = any(last_return < issued <= expired for issued in self.issued.values())
        if is_idle:
            self.probes -= count
        return is_idle

    def _collect_returns(self) -> None:
        for slot, issued in list(self.issued.items()):
            if (returned := -self.counters[slot]) > 0:
                del self.issued[slot]
                self.round_trips.append(returned - issued)
                self.last_return = max(self.last_return, returned)
