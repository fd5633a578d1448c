"""Tells a server that loads slowly from one that hangs."""

import time
from pathlib import Path

import psutil

# A server that hangs uses 0.1 % of a core in each of its processes, for looking at one another.
CPU_SHARE = 0.02
READ_BYTES = 65_536  # in a second
SAMPLE_SECONDS = 1


class Progress:
    """Watches whether the processes of a server work.

    They work if the log grows, or if one of them computes, reads files, or waits for a disk.
    """

    def __init__(self, process: int, log: Path) -> None:
        self._process = process
        self._log = log
        self._last = time.monotonic()
        self._sampled = self._last
        self._size = -1
        self._used: dict[int, tuple[float, int]] = {}  # by process: CPU seconds, bytes read

    def stalled(self) -> float:
        """Return for how many seconds there has been no progress."""
        now = time.monotonic()
        if (elapsed := now - self._sampled) >= SAMPLE_SECONDS:
            self._sampled = now
            if self._log_grew() | self._worked(elapsed):
                self._last = now
        return now - self._last

    def _log_grew(self) -> bool:
        size, self._size = self._size, self._log.stat().st_size if self._log.is_file() else 0
        return size != self._size

    def _worked(self, elapsed: float) -> bool:
        """Compare what each process has used with the last sample. A new process counts."""
        before, self._used, waits = self._used, {}, False
        for process in family(self._process):
            try:
                cpu, read = process.cpu_times(), process.io_counters().read_chars
                waits |= process.status() == psutil.STATUS_DISK_SLEEP
                self._used[process.pid] = cpu.user + cpu.system, read
            except psutil.Error:
                continue
        return waits or any(
            pid not in before
            or cpu - before[pid][0] > CPU_SHARE * elapsed
            or read - before[pid][1] > READ_BYTES * elapsed
            for pid, (cpu, read) in self._used.items()
        )


def family(process: int) -> list[psutil.Process]:
    """Return a process and its descendants, or nothing if it has ended."""
    try:
        parent = psutil.Process(process)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
