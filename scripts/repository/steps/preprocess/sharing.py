"""Shares memory and time for large images among the decoding processes of a server.

What one image may take is divided into units, and a unit is a byte of a lock file. An image locks
as many bytes as it needs units, with POSIX record locks, which the kernel releases when a process
dies. One more byte is held while an image collects its units, so that a large image is not
overtaken by small ones and two images never wait for each other. Threads of one process are not
told apart; the server's processes have one that decodes.

The file belongs to the processes that have the same parent: Triton starts all of them. If it cannot
be used, images are decoded without a common limit.
"""

import ctypes
import fcntl
import logging
import math
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from .errors import Busy

UNITS = 16
TURN = UNITS  # the byte that is held while units are collected
MAX_WAIT_SECONDS = 1.5
POLL_SECONDS = 0.005

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it

logger = logging.getLogger(__name__)


@contextmanager
def reserved(share: float) -> Iterator[None]:
    """Hold a share, at most 1, of what all processes together may use for large images.

    At the end, freed memory is returned to the system.

    Raises:
        Busy: other images held it for too long.
    """
    try:
        with _locked(math.ceil(UNITS * share)):
            yield
    finally:
        return_memory()


@contextmanager
def _locked(units: int) -> Iterator[None]:
    file = lock_file()
    if file is None:
        yield
        return
    held: list[int] = []
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    try:
        while not _try_lock(file, TURN):
            _wait_until(deadline)
        try:
            while len(held := [*held, *_lock_free(file, units, held)]) < units:
                _wait_until(deadline)
        finally:
            _unlock(file, TURN)
        yield
    finally:
        for unit in held:
            _unlock(file, unit)


def _lock_free(file: int, units: int, held: list[int]) -> list[int]:
    """Lock units until `units` are held, as far as they are free."""
    locked: list[int] = []
    for unit in range(UNITS):
        if len(held) + len(locked) == units:
            break
        if unit not in held and _try_lock(file, unit):
            locked.append(unit)
    return locked


def _wait_until(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise Busy("other large images are being decoded; try again")
    time.sleep(POLL_SECONDS)


def _try_lock(file: int, unit: int) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, unit)
    except (BlockingIOError, PermissionError):  # POSIX lets a system choose between the two
        return False
    return True


def _unlock(file: int, unit: int) -> None:
    fcntl.lockf(file, fcntl.LOCK_UN, 1, unit)


@cache
def lock_file() -> int | None:
    """Open the lock file once in a process. Closing it would release the process's locks."""
    path = Path(tempfile.gettempdir(), f"triton-decoding-{os.getppid()}")
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        status = os.fstat(file)
        if status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode):
            os.close(file)
            raise PermissionError(f"{path} belongs to another user")
        fcntl.lockf(file, fcntl.LOCK_UN, 1, TURN)  # fails where the file system has no locks
    except OSError as error:
        logger.warning("large images are decoded without a common limit of memory: %s", error)
        return None
    return file


def return_memory() -> None:
    """Give the freed pages of a large image back, which glibc would keep for the process."""
    if _trim:
        _trim(0)
