"""How a start is judged, with other programs in place of tritonserver."""

import sys
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import pytest

from scripts.embedded import ServerError, progress, triton
from scripts.embedded.triton import StartFault, Triton
from scripts.embedded.view import View

STALLED_SECONDS = 0.6


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "STALLED_SECONDS", STALLED_SECONDS)
    monkeypatch.setattr(progress, "SAMPLE_SECONDS", 0.2)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Triton]]:
    """Return a function that runs Python code as a tritonserver, which ends with the test."""
    started = []

    def run(code: str) -> Triton:
        folder = tmp_path / "server"
        folder.mkdir()
        process = Triton(
            [sys.executable, "-I", "-u", "-c", code],
            {},
            view=View(tmp_path, (), (), None),
            log=tmp_path / "log",
            folder=folder,
            prefix="no-such-region-",
            metrics=0,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()


def failure(process: Triton, seconds: float = inf) -> ServerError:
    with pytest.raises(ServerError) as caught:
        process.wait_until(lambda: False, seconds=seconds)
    return caught.value


def test_a_process_that_does_nothing_hangs(start: Callable[[str], Triton]) -> None:
    error = failure(start("import time; time.sleep(60)"))
    assert isinstance(error, StartFault)
    assert "hangs in loading" in str(error)


@pytest.mark.parametrize(
    "work",
    [
        "while True: pass",
        "import time\nwhile True: time.sleep(0.1); print(1)",
        "import time\nwhile True: time.sleep(0.1); open('/dev/zero', 'rb').read(1_000_000)",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])",
    ],
    ids=["computes", "logs", "reads", "a child computes"],
)
def test_a_process_that_works_does_not_hang(start: Callable[[str], Triton], work: str) -> None:
    error = failure(start(work), seconds=2 * STALLED_SECONDS)
    assert "not ready after 1 s" in str(error)
    assert not isinstance(error, StartFault)


def test_a_crash_is_a_fault_and_another_end_is_not(start: Callable[[str], Triton]) -> None:
    error = failure(start("import os; os.abort()"))
    assert isinstance(error, StartFault)
    assert "ended with signal SIGABRT in loading" in str(error)


@pytest.mark.parametrize(
    ("line", "is_fault"),
    [
        ("failed to load 'birds' version 1: Internal: no graph", False),
        ("failed to load 'birds' version 1: Internal: Stub process 'b_0' is not healthy.", True),
    ],
)
def test_the_reason_in_the_log_decides(
    start: Callable[[str], Triton], line: str, is_fault: bool
) -> None:
    code = f"print('E1129 model_lifecycle.cc:642] \"{line}\"'.replace('~', chr(39))); exit(1)"
    error = failure(start(code.replace("'birds'", "~birds~").replace("'b_0'", "~b_0~")))
    assert isinstance(error, StartFault) is is_fault
    assert is_fault or "failed to load 'birds' version 1: Internal: no graph" in str(error)
