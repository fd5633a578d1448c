"""What ends the processes of a server, and removes its files, when its starter was killed."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.embedded import guard

SLEEP = "import time; print(flush=True); time.sleep(60)"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A server's folder, whose name begins the name of a region of shared memory."""
    with tempfile.TemporaryDirectory(prefix="triton-guard-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / guard.BACKENDS).mkdir()
        region = guard.SHARED_MEMORY / f"{folder.name}-region"
        region.touch()
        yield folder
        region.unlink(missing_ok=True)


def test_the_processes_memory_and_folder_of_a_server_are_removed(folder: Path) -> None:
    others = [f"{folder}/{guard.BACKENDS}/python/stub", f"{folder}-another/{guard.BACKENDS}"]
    started = [
        subprocess.Popen([sys.executable, "-c", SLEEP, text], stdout=subprocess.PIPE)
        for text in others
    ]
    try:
        assert all(process.stdout and process.stdout.readline() for process in started)
        assert list(guard.processes(str(folder))) == [started[0].pid]
        guard.clean_up(str(folder))
        assert started[0].wait(10) == -signal.SIGKILL
        assert started[1].poll() is None
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert not folder.exists()
    assert list(guard.SHARED_MEMORY.glob(f"{folder.name}*")) == []


def test_a_folder_that_is_gone_already_is_no_error(folder: Path) -> None:
    guard.clean_up(str(folder))
    guard.clean_up(str(folder))
