"""Faults while clients classify: no image is lost, and the server recovers within seconds."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests import faults, namespaces
from tests.faults import Load, Served, under_load
from tests.integration.conftest import alive

PHOTOGRAPHS = 200


@pytest.fixture(scope="module")
def served(small_repository: Path) -> Iterator[Served]:
    with faults.serving(small_repository) as served:
        yield served


def check(load: Load, *, seconds: float = 20) -> None:
    """Assert that every image was answered, alike, and for how long none was."""
    assert load.errors == []
    assert len(load.answered) >= PHOTOGRAPHS
    assert len(load.answers) == 1
    assert load.gap() < seconds


@pytest.mark.parametrize(
    ("fault", "protocol"),
    [
        (lambda served: faults.kill_stub(served, "preprocess"), "grpc"),
        (lambda served: faults.kill_stub(served, "pixels"), "http"),
        (faults.kill_all_stubs, "http"),
        (lambda served: faults.stop_stub(served, "postprocess", seconds=4), "grpc"),
    ],
    ids=["one ends", "one of a graph ends", "all end", "one is stopped"],
)
def test_no_image_is_lost_when_python_stubs_fail(
    served: Served, fault: Callable[[Served], None], protocol: str
) -> None:
    before = len(served.lines)
    broken = served.triton()
    with under_load(served, protocol, at_least=PHOTOGRAPHS) as load:
        fault(served)
        assert "Python stub" in served.wait_for("; replacing the server", after=before)
        served.wait_for("replaced after", after=before)
        broken.wait(10)
    assert served.triton() != broken
    check(load)


@pytest.mark.parametrize(
    ("fault", "protocol"),
    [
        (faults.kill_server, "http"),
        (faults.stop_server, "grpc"),
        (lambda served: faults.send_endless_chunks(served, 1_000_000), "grpc"),
    ],
    ids=["SIGKILL", "SIGSTOP", "a million chunks"],
)
def test_no_image_is_lost_when_tritonserver_ends(
    served: Served, fault: Callable[[Served], None], protocol: str
) -> None:
    before = len(served.lines)
    with under_load(served, protocol, at_least=PHOTOGRAPHS) as load:
        fault(served)
        served.wait_for("tritonserver ended with signal ", after=before)
        served.wait_for("ready again", after=before)
    check(load)


def test_requests_cancelled_in_bursts_at_most_restart_the_server(served: Served) -> None:
    with under_load(served, "grpc", at_least=PHOTOGRAPHS) as load:
        faults.cancel_in_bursts(served)
    check(load)


def test_clients_that_vanish_or_are_idle_or_do_not_read_disturb_no_other(
    served: Served, protocol: str
) -> None:
    triton = served.triton()
    with (
        faults.idle_connections(served, 1_000),
        faults.slow_readers(served, 20),
        under_load(served, protocol, at_least=PHOTOGRAPHS) as load,
    ):
        faults.vanish(served, 50)
    check(load, seconds=3)
    assert served.triton() == triton


def test_nothing_stays_behind_when_serve_is_killed(small_repository: Path) -> None:
    with faults.serving(small_repository) as served:
        started = psutil.Process(served.process.pid).children(recursive=True)
        command = " ".join(served.triton().cmdline())
        folder = Path(command.partition("--backend-directory=")[2].partition("/backends")[0])
        assert folder.is_dir()
        served.process.kill()
        psutil.wait_procs(started, timeout=10)
        assert alive(started) == []
    assert not folder.exists()
    assert list(Path("/dev/shm").glob(f"{folder.name}*")) == []


def test_a_full_disk_of_the_log_does_not_stop_the_server(
    small_repository: Path, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    inside = namespaces.inside(f"mount -t tmpfs -o size=64k none {logs}")
    options = [f"--log={logs}/triton.log", "--", "--log-verbose=1"]
    with faults.serving(small_repository, *options, prefix=inside) as served:
        with under_load(served, "http", at_least=PHOTOGRAPHS) as load:
            pass
        there = Path(f"/proc/{served.process.pid}/root{logs}")
        assert shutil.disk_usage(there).free == 0
        check(load, seconds=3)


def test_full_shared_memory_does_not_stop_the_server(small_repository: Path) -> None:
    inside = namespaces.inside("mount -t tmpfs -o size=64m none /dev/shm")
    with faults.serving(small_repository, prefix=inside) as served:
        there = Path(f"/proc/{served.process.pid}/root/dev/shm")
        filler = there / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(there).free)
        with under_load(served, "http", at_least=PHOTOGRAPHS) as load:
            faults.kill_stub(served)
            assert "No space left on device" in served.wait_for("the server is not replaced")
            filler.unlink()
            served.wait_for("replaced after")
        check(load)
