"""Real Tritons for the tests: one with all classifiers, and small repositories to start others."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import psutil
import pytest

from client import Classifier
from scripts import build_repository
from scripts.embedded import EmbeddedServer, Endpoints
from scripts.repository import builder, sources
from tests.conftest import ROOT
from tests.graphs import FLEXIBLE, SOFTMAXED, classifier

PROTOCOLS = ("grpc", "http")
# Triton goes on answering on the HTTP connections that it has for 30 seconds unless told.
HASTE = ["--exit-timeout-secs=1"]


def add_birds(repository: Path, folder: Path, name: str = "birds", body: str = FLEXIBLE) -> None:
    """Add a classifier of ten classes that builds and loads in no time."""
    file = folder / f"{name}.onnx"
    onnx.save(classifier(body), file)
    builder.add(repository, sources.from_file(file, name))


def url(server: EmbeddedServer, protocol: str) -> str:
    return f"{protocol}://{server.endpoints.host}:{server.endpoints.ports[protocol]}"


def process_of(server: EmbeddedServer) -> psutil.Process:
    """The tritonserver itself."""
    port = f"--grpc-port={server.endpoints.grpc}"
    (process,) = (each for each in psutil.Process().children() if port in each.cmdline())
    return process


def end(server: EmbeddedServer, number: int) -> None:
    """Send a signal to a server from outside, as a crash or an orchestrator does, and wait."""
    process = process_of(server)
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)  # its children too, which would wait for it
    else:
        process.send_signal(number)
    process.wait(60)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; one that only waits for its parent to notice its end does not."""
    gone = {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    return [each for each in processes if each.is_running() and each.status() not in gone]


@pytest.fixture(scope="session")
def small_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    add_birds(folder / "model_repository", folder)
    return folder / "model_repository"


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All eleven classifiers of the catalogue, with synthetic weights, and the birds, twice."""
    folder = tmp_path_factory.mktemp("all")
    output = folder / "model_repository"
    options = ["--weights", "synthetic", "--cores", "1", "--output", str(output)]
    assert build_repository.main(options) == 0
    add_birds(output, folder)
    add_birds(output, folder, "birds_softmax", SOFTMAXED)
    return output


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    log = tmp_path_factory.mktemp("log") / "tritonserver.log"
    with EmbeddedServer(repository, endpoints=Endpoints.free(), log=log) as server:
        yield server


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def birds(server: EmbeddedServer, protocol: str) -> Iterator[Classifier]:
    """A client of the birds' ensemble, over each protocol."""
    with Classifier(url(server, protocol), model="birds") as classifier:
        yield classifier


def run_python(code: str) -> str:
    """Run code in a process of its own and return what it prints; nothing may be complained of."""
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout
