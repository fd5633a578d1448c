"""Ends what a server consists of when the process that started it is killed.

Run as `python guard.py FOLDER` with a pipe as standard input, whose other end only the starting
process has. FOLDER is the server's temporary folder: the path of the backends in it is in the
command line of tritonserver and of each Python stub, and its name begins the names of their shared
memory.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BACKENDS = "backends"  # in the server's folder
ATTEMPTS = 100
PAUSE_SECONDS = 0.05
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux shows shared memory


@contextmanager
def watching(folder: Path) -> Iterator[None]:
    """Let another process clean up if this one is killed within the `with` block."""
    command = [sys.executable, "-I", __file__, str(folder)]
    # A session of its own protects it from a Ctrl-C and from a kill of the process group.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield  # the end of the block closes the pipe and waits


def clean_up(folder: str) -> None:
    """Kill the processes that a server left behind, then remove its files."""
    for _ in range(ATTEMPTS):  # a process may be starting another
        left = list(processes(folder))
        if not left:
            break
        for process in left:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(PAUSE_SECONDS)
    remove_shared_memory(Path(folder).name)
    shutil.rmtree(folder, ignore_errors=True)


def processes(folder: str) -> Iterator[int]:
    """Find the processes that run with the backends in a server's folder."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            # That of a zombie is empty.
            if os.fsencode(f"{folder}/{BACKENDS}") in file.read_bytes():
                yield int(file.parent.name)


def remove_shared_memory(prefix: str) -> None:
    """Remove the shared memory whose name begins with `prefix`."""
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.stdin.read()  # until the other end is closed
    clean_up(sys.argv[1])
