"""What a server's processes use, sampled once or in the background."""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields

import numpy as np
import psutil

from scripts.embedded.guard import SHARED_MEMORY

MIB = 1 << 20
BLOCK_BYTES = 512  # the unit of st_blocks, see stat(2)
PREFIX = re.compile(r"shm-region-prefix-name=([\w.-]+)")
SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Usage:
    """Memory (proportional set size) and Triton's shared memory in MiB, and open descriptors."""

    memory: float
    shared_memory: float
    descriptors: float


def usage(pid: int) -> Usage:
    """Add up what a process and its descendants use."""
    root = psutil.Process(pid)
    memory, descriptors, prefixes = 0, 0, set[str]()
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            memory += process.memory_full_info().pss
            descriptors += process.num_fds()
            prefixes.update(PREFIX.findall(" ".join(process.cmdline())))
    files = [file for prefix in prefixes for file in SHARED_MEMORY.glob(f"{prefix}*")]
    shared = sum(file.stat().st_blocks * BLOCK_BYTES for file in files)
    return Usage(memory / MIB, shared / MIB, descriptors)


def slopes(done: Sequence[int], samples: Sequence[Usage], per: int) -> Usage:
    """Return how much each value grows per `per` requests, by least squares."""
    lines = ([getattr(sample, field.name) for sample in samples] for field in fields(Usage))
    return Usage(*(float(np.polyfit(done, line, 1)[0]) * per for line in lines))


@contextmanager
def peak_memory(pid: int) -> Iterator[list[float]]:
    """Sample the memory during the block; the list's one value is the highest, in MiB."""
    peak, done = [usage(pid).memory], threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_SECONDS):
            peak[0] = max(peak[0], usage(pid).memory)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
