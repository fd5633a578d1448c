"""`python -m scripts.reload`: another version takes over while requests flow."""

import http.client
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import requests

from client import SAMPLE, Classifier, Prediction
from scripts.embedded import EmbeddedServer, Endpoints, steering
from tests import faults
from tests.conftest import ROOT
from tests.faults import Served, under_load
from tests.integration.conftest import HASTE, add_birds, url

KEEP_ALIVE_REQUESTS = 50
# The replaced server keeps open HTTP connections for up to 30 seconds by default.
PATIENCE = ["--", *HASTE, "--exit-timeout-secs=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reload")
    add_birds(folder / "model_repository", folder, version=1)
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with faults.serving(folder / "model_repository", *PATIENCE) as served:
        yield served


def reload(served: Served) -> "subprocess.CompletedProcess[str]":
    port = f"--http-port={served.endpoints.http}"
    return subprocess.run(
        [sys.executable, "-m", "scripts.reload", port],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def predictions(
    served: Served, protocol: str = "grpc", model: str = "birds"
) -> tuple[Prediction, ...]:
    with Classifier(served.url(protocol), model=model, retries=0) as classifier:
        return classifier.image(SAMPLE).predictions


@dataclass
class KeepAlive:
    """What a plain HTTP client without retries got, over connections of some requests each."""

    answers: set[tuple[int, bytes]] = field(default_factory=set)
    count: int = 0
    errors: list[str] = field(default_factory=list)


@contextmanager
def keep_alive(served: Served) -> Iterator[KeepAlive]:
    """Send requests over HTTP connections that stay open, during the block."""
    seen, done = KeepAlive(), threading.Event()
    headers = {"Inference-Header-Content-Length": "0"}

    def requests_on_one_connection() -> None:
        connection = http.client.HTTPConnection(served.endpoints.at("http"), timeout=10)
        for _ in range(KEEP_ALIVE_REQUESTS):
            connection.request("POST", "/v2/models/birds/infer", faults.JPEG, headers)
            response = connection.getresponse()
            seen.answers.add((response.status, response.read()))
            seen.count += 1
        connection.close()

    def run() -> None:
        while not done.is_set():
            try:
                requests_on_one_connection()
            except (OSError, http.client.HTTPException) as error:
                seen.errors.append(repr(error))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def test_versions_change_there_and_back_without_a_failure(served: Served, folder: Path) -> None:
    answers = {1: predictions(served)}
    with (
        under_load(served, "grpc") as grpc,
        under_load(served, "http") as http_,
        keep_alive(served) as raw,
    ):
        for version in (2, 1):
            add_birds(folder / "model_repository", folder, version=version)
            result = reload(served)
            assert result.returncode == 0, result.stderr
            assert "serving birds from" in result.stdout
            # New connections reach the new version only.
            answers[version] = predictions(served, "http")
            assert {each.label.partition(",")[0] for each in answers[version]} == {
                f"version {version}"
            }
            assert predictions(served, "grpc") == answers[version]
    assert grpc.errors == http_.errors == raw.errors == []
    assert grpc.answers == http_.answers == set(answers.values())
    assert {status for status, _ in raw.answers} == {200}
    assert len(raw.answers) == 2  # each is wholly of one version
    assert raw.count > KEEP_ALIVE_REQUESTS


def test_a_server_is_replaced_where_connections_cannot_be_directed(
    small_repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(steering, "SO_ATTACH_REUSEPORT_CBPF", 9999)  # as on another kernel
    at = Endpoints.free()
    with EmbeddedServer(small_repository, endpoints=at, arguments=HASTE) as server:
        old = psutil.Process(server.running.process)
        server.replace()
        assert "cannot direct connections" in caplog.text
        assert server.running.process != old.pid
        psutil.wait_procs([old], timeout=10)
        assert not old.is_running()
        with Classifier(url(server, "http"), model="birds") as classifier:
            assert classifier.image(SAMPLE).predictions
        assert requests.get(f"http://{server.endpoints.at('metrics')}/metrics", timeout=5).ok


def failed_reload(served: Served) -> str:
    """Reload, and return the one line that says why the old version goes on."""
    before, triton = predictions(served), served.triton()
    result = reload(served)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: the old version goes on: ")
    assert predictions(served) == before
    assert served.triton() == triton
    return line


def test_a_file_that_does_not_match_the_manifest_is_refused(served: Served, folder: Path) -> None:
    with damaged(folder):
        assert "birds_onnx/1/model.onnx does not match its sha256" in failed_reload(served)


def test_a_version_that_does_not_load_is_refused(folder: Path) -> None:
    options = ["--no-verify", *PATIENCE]
    with faults.serving(folder / "model_repository", *options) as served, damaged(folder):
        line = failed_reload(served)
        assert "failed to load 'birds_onnx'" in line
        assert "model_repository/birds_onnx/1/model.onnx failed" in line


@contextmanager
def damaged(folder: Path) -> Iterator[None]:
    graph = folder / "model_repository" / "birds_onnx" / "1" / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(b"no graph")
    try:
        yield
    finally:
        graph.write_bytes(whole)


def test_a_model_that_was_added_is_served(served: Served, folder: Path) -> None:
    add_birds(folder / "model_repository", folder, "planes")
    assert "serving birds, planes from" in reload(served).stdout
    assert predictions(served, model="planes")


def test_without_a_server_the_error_says_how_to_name_one() -> None:
    command = [sys.executable, "-m", "scripts.reload", "--http-port=9"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert "error: no scripts.serve of this user serves HTTP on port 9" in result.stderr
    assert "--http-port" in result.stderr
