"""The container's health check, with a web server in Triton's place that can be busy or broken."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scripts.container import health
from scripts.container.health import Unhealthy
from tests.web import Responder


class Triton(ThreadingHTTPServer):
    """Serves the classifier `birds`; `completed` counts its requests."""

    ready = inference = 200
    completed = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class Handler(Responder, BaseHTTPRequestHandler):
    server: Triton

    def do_GET(self) -> None:
        success = {"count": str(self.server.completed)}
        stats = [{"name": "birds", "inference_stats": {"success": success}}]
        self.respond(self.server.ready, json.dumps({"model_stats": stats}).encode())

    def do_POST(self) -> None:
        assert self.path == "/v2/models/birds/infer"
        assert self.rfile.read(int(self.headers["Content-Length"])) == health.PIXEL
        self.respond(self.server.inference, b"busy")


@pytest.fixture
def triton() -> Iterator[Triton]:
    with Triton(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server
        server.shutdown()


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[bytes]"]:
    """The process that the check ends, just started."""
    monkeypatch.setattr(health, "STATE", tmp_path / "state")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        health.note(process.pid, 0, health.START_SECONDS)
        yield process
        process.kill()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "manifest.json").write_text('{"models": {"birds": {}, "not loaded": {}}}')
    return tmp_path


def test_a_server_that_classifies_is_healthy(
    triton: Triton, process: "subprocess.Popen[bytes]", repository: Path
) -> None:
    triton.completed = 7
    health.check(triton.address, repository)
    assert health.STATE.read_text() == f"{process.pid} 7"
    patience = health.STATE.stat().st_mtime - time.time()
    assert health.STUCK_SECONDS - 5 < patience <= health.STUCK_SECONDS


def test_a_busy_server_is_healthy_while_it_completes_other_requests(
    triton: Triton, process: "subprocess.Popen[bytes]", repository: Path
) -> None:
    triton.inference = 503
    triton.completed = 1
    health.check(triton.address, repository)
    with pytest.raises(Unhealthy, match="birds: busy"):
        health.check(triton.address, repository)  # none was completed since


@pytest.mark.parametrize("broken", [{"ready": 503}, {"inference": 500}])
def test_a_broken_server_is_ended_when_patience_is_over(
    triton: Triton,
    process: "subprocess.Popen[bytes]",
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    broken: dict[str, int],
) -> None:
    vars(triton).update(broken)
    arguments = ["--http", triton.address, "--model-repository", str(repository)]
    assert health.main(arguments) == 1
    assert capsys.readouterr().out.startswith("Unhealthy: ")
    assert process.poll() is None
    os.utime(health.STATE, (0, 0))
    assert health.main(arguments) == 1
    assert process.wait(10) == -9


def test_a_repository_without_a_manifest_is_only_asked_whether_it_is_ready(
    triton: Triton, process: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    triton.inference = 500
    health.check(triton.address, tmp_path)


def test_a_server_that_is_not_started_is_unhealthy(
    triton: Triton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "STATE", tmp_path / "state")
    with pytest.raises(Unhealthy, match="not started"):
        health.check(triton.address, tmp_path)
    health.start(tmp_path)
    assert health.STATE.read_text() == f"{os.getpid()} 0"


@pytest.mark.parametrize(
    ("manifest", "seconds"),
    [
        ('{"models": {"birds": {"tuning": {"engine": "onnxruntime"}}}}', health.START_SECONDS),
        ('{"models": {"birds": {"tuning": null}, "planes": {}}}', health.START_SECONDS),
        (
            '{"models": {"birds": {}, "planes": {"tuning": {"engine": "tensorrt"}}}}',
            health.ENGINE_SECONDS,
        ),
        ("damaged", health.START_SECONDS),
        (None, health.START_SECONDS),
    ],
)
def test_a_server_has_longer_to_start_if_tensorrt_may_compile_engines(
    manifest: str | None, seconds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "STATE", tmp_path / "state")
    if manifest:
        (tmp_path / "manifest.json").write_text(manifest)
    health.start(tmp_path)
    assert health.STATE.stat().st_mtime - time.time() == pytest.approx(seconds, abs=5)
