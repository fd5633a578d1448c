"""Credit-based flow control: limits how many decoded images wait for the graph.

Decoding is cheaper than inference, so under overload decoded images would pile up in front of the
graph. Each decoded image therefore carries a credit through the graph to the postprocessing step,
whose `credits.py` returns it. A worker with as many outstanding credits as its limit stops
decoding; then its queue fills up, and Triton rejects further requests.

A credit is INT64 [2]: the number of the worker's pipe, a FIFO special file among the temporary
files, and a nonce, which no client can guess. The nonce and the time return through the pipe.
"""

import functools
import math
import os
import secrets
import struct
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

PIPE = "triton-credits-{}"
RETURN = struct.Struct("=qq")  # a nonce, and the time in ns of the system's monotonic clock
PIPE_BYTES = 1 << 16  # Linux's default capacity
REMEMBERED = 256  # the latest credits, of which a return is recognised
POLL_SECONDS = 0.005
ROUND_TRIPS = 64
MAX_ROUND_TRIP_NS = 5_000_000_000
# A request that fails or is cancelled loses its credit. A credit expires once its age, now or at
# the last return, exceeds this multiple of the longest recent round trip. If the graph is busy with
# cancelled images, no more credits then expire than would have returned.
EXPIRY_FACTOR = 1.5
# The shortest expiry while nothing returns, since round trips grow when load rises. It is the
# minimum of TCP's retransmission timeout (RFC 6298, 2.4), which faces the same problem.
MIN_EXPIRY_NS = 1_000_000_000
# When a credit expires that was issued after the last return, the head of the queue was cancelled.
# This many times the limit may then be decoded without waiting, to get past it.
PROBE_FACTOR = 4
# When `limit` credits are older than this, for an image of one crop, and none has ever returned,
# none can return.
FIRST_RETURN_NS = 3_000_000_000


class CreditLimit:
    """Issues the credits of this process; waits while `limit` are outstanding, if they can return.

    `warn` gets one line if they cannot. An image takes `crops` of them, which return together.
    """

    def __init__(self, limit: int, warn: Callable[[str], None], crops: int = 1) -> None:
        self.limit: float = limit
        self.first_return_ns = crops * FIRST_RETURN_NS
        self.warn = functools.cache(warn)  # each line once
        self.issued: dict[int, int] = {}  # nonce to time of issue, the oldest first
        self.round_trips = deque([0], maxlen=ROUND_TRIPS)
        self.last_return = 0
        self.is_silent = False
        self.probes = self.all_probes = PROBE_FACTOR * limit
        self.number = secrets.randbits(63)
        try:
            path = Path(tempfile.gettempdir(), PIPE.format(self.number))
            os.mkfifo(path, 0o600)
            weakref.finalize(self, path.unlink, missing_ok=True)
            # For writing too: without a writer, a pipe would always be at its end.
            self.pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            self.limit = math.inf
            self.warn(f"decoding is not limited, since credits cannot return: {error}")

    def issue(self, count: int) -> npt.NDArray[np.int64]:
        """Issue credits, INT64 [count, 2], for images that were decoded."""
        nonces = [secrets.randbits(63) for _ in range(count)]
        self.issued |= dict.fromkeys(nonces, time.monotonic_ns())
        for lost in list(self.issued)[:-REMEMBERED]:
            del self.issued[lost]
        return np.array([(self.number, nonce) for nonce in nonces], np.int64)

    def wait(self, count: int) -> None:
        """Block until the images of `count` requests may be decoded."""
        while len(self.issued) >= self.limit and not self._may_decode(count):
            time.sleep(POLL_SECONDS)

    def outstanding(self) -> int:
        """Count the credits that have neither returned nor expired."""
        self._collect_returns()
        return len(self.issued) - self._issued_until(self._expired_until())

    def _issued_until(self, moment: float) -> int:
        return sum(issued <= moment for issued in self.issued.values())

    def _expired_until(self) -> float:
        """Return the time of issue, in ns, up to which credits have expired."""
        expiry = EXPIRY_FACTOR * min(max(self.round_trips), MAX_ROUND_TRIP_NS)
        return max(self.last_return - expiry, time.monotonic_ns() - max(expiry, MIN_EXPIRY_NS))

    def _may_decode(self, count: int) -> bool:
        if self.outstanding() < self.limit:
            return True
        if not self.last_return:
            silent_since = time.monotonic_ns() - self.first_return_ns
            self.is_silent = self.is_silent or self._issued_until(silent_since) >= self.limit
        if self.is_silent:
            self.warn("decoding is not limited until a credit returns, since none ever has")
            return True
        lost = self._issued_until(self._expired_until()) - self._issued_until(self.last_return)
        if lost <= 0 or self.probes <= 0:
            return False
        self.probes -= count
        return True

    def _collect_returns(self) -> None:
        with suppress(BlockingIOError):  # the pipe is empty
            data = os.read(self.pipe, PIPE_BYTES)
            for nonce, returned in RETURN.iter_unpack(
                data[: len(data) // RETURN.size * RETURN.size]
            ):
                if issued := self.issued.pop(nonce, 0):
                    self.round_trips.append(returned - issued)
                    self.last_return = max(self.last_return, returned)
                    self.probes, self.is_silent = self.all_probes, False
