"""The container's health check against a server that answers as a test wants."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from scripts.container import health
from tests.web import serving


class Answers:
    """What the server answers, and which models it was asked to classify with."""

    ready = 200
    classification = 200
    delay = 0.0
    completed = 0
    asked: list[str]

    def __init__(self) -> None:
        self.asked = []

    def statistics(self) -> bytes:
        counts = {"birds": self.completed, "planes": 0, "birds_pixels": 0}
        return json.dumps(
            {
                "model_stats": [
                    {"name": name, "inference_stats": {"success": {"count": count}}}
                    for name, count in counts.items()
                ]
            }
        ).encode()


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def address(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/v2/health/ready":
                self.answer(answers.ready)
            else:
                assert self.path == "/v2/models/stats"
                self.answer(200, answers.statistics())

        def do_POST(self) -> None:
            answers.asked.append(self.path.split("/")[3])
            time.sleep(answers.delay)
            self.answer(answers.classification, b"reason")

        def answer(self, status: int, body: bytes = b"") -> None:
            with suppress(BrokenPipeError):  # the check no longer waits
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

    for variable in ("http_proxy", "HTTP_PROXY"):  # Docker passes them to every container
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing listens there
    with serving(Handler) as address:
        yield address


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository that has had a further classifier since the server was started."""
    models = dict.fromkeys(("birds", "planes", "newer"), "entry")
    (tmp_path / "manifest.json").write_text(json.dumps({"models": models}))
    return tmp_path


@pytest.fixture(autouse=True)
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[bytes]"]:
    """The process that stands for Triton, noted with no request completed."""
    monkeypatch.setattr(health, "STATE", tmp_path / "state")
    monkeypatch.setattr(health, "REQUEST_SECONDS", 0.1)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        health.note(process.pid, 0, 60)
        yield process
        process.kill()


def lose_patience(pid: int) -> None:
    health.note(pid, 0, -1)


def test_classifiers_that_are_served_take_turns(
    address: str, repository: Path, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "TURN_SECONDS", 0.001)
    for _ in range(50):
        health.check(address, repository)
    assert set(answers.asked) == {"birds", "planes"}


def test_a_server_that_answers_gets_time_until_the_next_check(
    address: str, repository: Path, process: "subprocess.Popen[bytes]"
) -> None:
    lose_patience(process.pid)
    health.check(address, repository)
    assert health.STATE.stat().st_mtime == pytest.approx(time.time() + 60, abs=5)


@pytest.mark.parametrize(("status", "delay"), [(503, 0.0), (200, 0.5)])
def test_a_busy_server_is_healthy_if_it_completes_other_requests(
    address: str, repository: Path, answers: Answers, status: int, delay: float
) -> None:
    answers.classification, answers.delay, answers.completed = status, delay, 5
    health.check(address, repository)
    with pytest.raises(health.Unhealthy):  # since it has completed none in between
        health.check(address, repository)
    answers.completed = 6
    health.check(address, repository)


@pytest.mark.parametrize("status", [400, 500])
def test_a_failing_classifier_is_unhealthy_whatever_else_works(
    address: str, repository: Path, answers: Answers, status: int
) -> None:
    answers.classification, answers.completed = status, 5
    with pytest.raises(health.Unhealthy, match="reason"):
        health.check(address, repository)


def test_a_server_that_is_not_ready_is_unhealthy(
    address: str, repository: Path, answers: Answers
) -> None:
    answers.ready = 400
    with pytest.raises(health.Unhealthy, match="not ready"):
        health.check(address, repository)
    assert answers.asked == []


@pytest.mark.parametrize("manifest", [None, '{"models": {"newer": {}}}'])
def test_readiness_is_enough_if_no_classifier_is_known(
    address: str, tmp_path: Path, answers: Answers, manifest: str | None
) -> None:
    if manifest:
        (tmp_path / "manifest.json").write_text(manifest)
    health.check(address, tmp_path)
    assert answers.asked == []


def test_an_unhealthy_server_is_ended_only_after_its_deadline(
    repository: Path, process: "subprocess.Popen[bytes]"
) -> None:
    nobody = "127.0.0.1:9"
    with pytest.raises(health.Unhealthy, match="Connection refused"):
        health.check(nobody, repository)
    assert process.poll() is None
    lose_patience(process.pid)
    for _ in range(2):  # again, when the process has gone
        with pytest.raises(health.Unhealthy, match="Connection refused"):
            health.check(nobody, repository)
        assert process.wait(10) == -signal.SIGKILL


def test_before_the_start_the_server_is_unhealthy(repository: Path) -> None:
    health.STATE.unlink()
    with pytest.raises(health.Unhealthy, match="not started"):
        health.check("127.0.0.1:9", repository)
