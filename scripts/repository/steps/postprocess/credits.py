"""Returns credits to the preprocessing workers; their `credits.py` describes the flow control."""

import os
import stat
import struct
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

PIPE = "triton-credits-{}"
RETURN = struct.Struct("=qq")


class CreditReturns:
    """The pipes to all preprocessing workers, by number."""

    def __init__(self) -> None:
        self.pipes: dict[int, int] = {}

    def give_back(self, returned: npt.NDArray[np.int64]) -> None:
        """Return credits, INT64 [N, 2]; what clients make up changes nothing."""
        now = time.monotonic_ns()
        for number, nonce in returned.tolist():
            with suppress(OSError):  # the credit expires
                if number not in self.pipes:
                    self.pipes[number] = _open(Path(tempfile.gettempdir(), PIPE.format(number)))
                os.write(self.pipes[number], RETURN.pack(nonce, now))


def _open(path: Path) -> int:
    pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    status = os.fstat(pipe)
    # Others can make any file of such a name, and clients can name it.
    if stat.S_ISFIFO(status.st_mode) and status.st_uid == os.geteuid():
        return pipe
    os.close(pipe)
    raise PermissionError(path)
