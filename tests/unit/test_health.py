"""What counts as a fault, with a web server and processes of the test."""

import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from scripts.embedded import ServerError, health
from scripts.embedded.health import FAILED_PROBES, Health
from tests.web import Responder


class Triton(ThreadingHTTPServer):
    """Answers inferences with `status`, and metrics with `successes`."""

    status = 200
    successes = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)

    def as_server(self, process: int, log: Path | None = None) -> Any:
        """Return what Health uses of an EmbeddedServer."""
        port = self.server_address[1]
        view = SimpleNamespace(ensembles=("birds", "planes"))
        return SimpleNamespace(
            endpoints=SimpleNamespace(at=lambda _: f"127.0.0.1:{port}"),
            running=SimpleNamespace(process=process, metrics=port, view=view),
            gpus=("GPU",) if log else (),
            log=log,
        )


class Handler(Responder, BaseHTTPRequestHandler):
    server: Triton

    def do_GET(self) -> None:
        line = (
            f'nv_inference_request_success{{model="birds",version="1"}} {self.server.successes}\n'
        )
        self.respond(200, line.encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.respond(self.server.status, b'{"error": "out of order"}')


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[Triton]:
    monkeypatch.setattr(health, "PROBE_SECONDS", 0)
    with Triton() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def parent() -> Iterator[psutil.Process]:
    """A process with one child, as tritonserver has stubs."""
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"]) as process:
        parent = psutil.Process(process.pid)
        while not parent.children():
            time.sleep(0.01)
        children = parent.children()
        yield parent
        for each in filter(psutil.Process.is_running, [*children, parent]):
            each.kill()


def faults(watched: Health, times: int) -> list[str | None]:
    return [watched.fault() for _ in range(times)]


def test_a_model_that_does_not_classify_for_some_probes_is_a_fault(
    triton: Triton, parent: psutil.Process
) -> None:
    watched = Health(triton.as_server(parent.pid))
    assert faults(watched, 2 * FAILED_PROBES) == [None] * 2 * FAILED_PROBES
    triton.status = 500
    assert faults(watched, FAILED_PROBES - 1) == [None] * (FAILED_PROBES - 1)
    assert "does not classify an image: out of order" in str(watched.fault())


def test_failed_probes_do_not_count_while_requests_succeed(
    triton: Triton, parent: psutil.Process
) -> None:
    watched = Health(triton.as_server(parent.pid))
    triton.status = 503  # the queue is full
    for _ in range(2 * FAILED_PROBES):
        triton.successes += 1
        assert watched.fault() is None
    assert any(faults(watched, FAILED_PROBES))


def test_a_model_that_refuses_the_first_probe_is_not_watched(
    triton: Triton, parent: psutil.Process, caplog: pytest.LogCaptureFixture
) -> None:
    triton.status = 400
    watched = Health(triton.as_server(parent.pid))
    assert "planes does not classify an image: out of order; it is not watched" in caplog.text
    assert faults(watched, 2 * FAILED_PROBES) == [None] * 2 * FAILED_PROBES


def test_a_child_that_ends_is_a_fault(triton: Triton, parent: psutil.Process) -> None:
    watched = Health(triton.as_server(parent.pid))
    (child,) = parent.children()
    assert watched.fault() is None
    child.kill()
    child.wait(5)
    assert watched.fault() == f"Python stub {child.pid} has ended"


def test_a_child_that_is_stopped_twice_in_a_row_is_a_fault_and_killed(
    triton: Triton, parent: psutil.Process
) -> None:
    watched = Health(triton.as_server(parent.pid))
    (child,) = parent.children()
    stop(child)
    assert watched.fault() is None
    child.resume()
    while child.status() == psutil.STATUS_STOPPED:
        time.sleep(0.01)
    assert watched.fault() is None
    stop(child)
    assert watched.fault() is None
    watched.fault()
    child.wait(5)
    assert watched.fault() == f"Python stub {child.pid} has ended"


def test_a_server_that_is_stopped_is_killed(triton: Triton, parent: psutil.Process) -> None:
    watched = Health(triton.as_server(parent.pid))
    stop(parent)
    assert faults(watched, 2) == [None, None]
    parent.wait(5)


def stop(process: psutil.Process) -> None:
    process.suspend()
    while process.status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)


def test_a_server_on_a_gpu_whose_pixels_are_lost_ends(
    triton: Triton, parent: psutil.Process, tmp_path: Path
) -> None:
    log = tmp_path / "tritonserver.log"
    lost = (
        'E1130 20:07:00.000000 7 pb_stub.cc:402] "An error occurred while trying to load GPU '
        "buffers in the Python backend stub: Failed to open the cudaIpcHandle. error: invalid "
        'device context"\n'
    )
    log.write_text(lost)  # by an earlier server
    watched = Health(triton.as_server(parent.pid, log))
    assert faults(watched, 2) == [None, None]
    with log.open("a") as file:
        file.write(lost[:60])
        file.flush()
        assert faults(watched, 2) == [None, None]
        file.write(lost[60:])
    with pytest.raises(ServerError, match=r"^pixels do not pass .*; see .*log, or build the repo"):
        watched.fault()


@pytest.mark.parametrize("log", ["/dev/null", "/dev/removed"])
def test_a_log_that_cannot_be_read_again_is_not_searched(
    triton: Triton, parent: psutil.Process, log: str
) -> None:
    watched = Health(triton.as_server(parent.pid, Path(log)))
    assert faults(watched, 2) == [None, None]
