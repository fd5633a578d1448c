"""Ends what a server consists of when the process that started it is killed.

Run as `python guard.py FOLDER` with a pipe as standard input, whose other end only the starting
process has. FOLDER is the server's temporary folder: its path is in the command line of
tritonserver and of each Python stub, and its name begins the names of their shared memory.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
    while left := list(processes(folder)):  # one may be starting another
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    remove_shared_memory(Path(folder).name)
    shutil.rmtree(folder, ignore_errors=True)


def processes(folder: str) -> Iterator[int]:
    """Find the other processes whose command line contains the path of a folder."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        process = int(file.parent.name)
        with suppress(OSError):
            # That of a zombie is empty.
            if process != os.getpid() and os.fsencode(f"{folder}/") in file.read_bytes():
                yield process


def remove_shared_memory(prefix: str) -> None:
    """Remove the shared memory whose name begins with `prefix`."""
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.stdin.read()  # until the other end is closed
    clean_up(sys.argv[1])
