"""Fixtures that start a real Triton, and the model repositories that it serves."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

from client import Classifier
from scripts import build_repository
from scripts.embedded import Access, EmbeddedServer, Endpoints
from scripts.embedded.access import key_headers
from scripts.repository import builder, sources
from tests.conftest import ROOT
from tests.descriptions import said
from tests.graphs import CLASSES, FLEXIBLE, SOFTMAXED, classifier

PROTOCOLS = ("grpc", "http")
ADMIN_KEY = "correct-horse=battery:staple,"
ADMIN = key_headers(ADMIN_KEY)
# By default Triton keeps open HTTP connections for up to 30 seconds when it stops.
HASTE = ["--exit-timeout-secs=0"]


def add_birds(
    repository: Path,
    folder: Path,
    name: str = "birds",
    body: str = FLEXIBLE,
    *,
    version: int = 0,
    classes: int = CLASSES,
) -> None:
    """Add a classifier, of ten classes unless told, that builds and loads in under a second.

    Each version has other weights and, but for 0, labels that name it.
    """
    file = folder / f"{name}.onnx"
    weight = np.random.default_rng(version).standard_normal((3, classes)).astype(np.float32)
    scores = f"float[1,{classes}]"
    onnx.save(classifier(body, scores=scores, initializers={"weight": weight}), file)
    labels = tuple(f"version {version}, bird {number}" for number in range(classes))
    builder.add(repository, sources.from_file(file, name, said(labels=labels if version else None)))


def url(server: EmbeddedServer, protocol: str) -> str:
    return f"{protocol}://{server.endpoints.at(protocol)}"


def process_of(server: EmbeddedServer) -> psutil.Process:
    """Find the tritonserver process of a server."""
    port = f"--grpc-port={server.endpoints.grpc}"
    (process,) = (each for each in psutil.Process().children() if port in each.cmdline())
    return process


def end(server: EmbeddedServer, number: int) -> None:
    """Send a signal to tritonserver, as an orchestrator does, and wait for it to exit.

    SIGKILL goes to the whole process group, since the children would otherwise wait for the parent.
    """
    process = process_of(server)
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    process.wait(60)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that still run. Zombies do not count."""
    ended = {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    return [each for each in processes if each.is_running() and each.status() not in ended]


@pytest.fixture(scope="session")
def small_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    add_birds(folder / "model_repository", folder)
    return folder / "model_repository"


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All eleven catalogue classifiers with synthetic weights, and three small classifiers."""
    folder = tmp_path_factory.mktemp("all")
    output = folder / "model_repository"
    options = ["--weights", "synthetic", "--cores", "1", "--output", str(output)]
    assert build_repository.main(options) == 0
    add_birds(output, folder)
    add_birds(output, folder, "birds_softmax", SOFTMAXED)
    add_birds(output, folder, "two_birds", classes=2)
    return output


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    log = tmp_path_factory.mktemp("log") / "tritonserver.log"
    with EmbeddedServer(repository, endpoints=Endpoints.free(), arguments=HASTE, log=log) as server:
        yield server


@pytest.fixture(scope="session")
def small_server(small_repository: Path) -> Iterator[EmbeddedServer]:
    """A server of the birds with the default options."""
    with EmbeddedServer(small_repository, endpoints=Endpoints.free(), arguments=HASTE) as server:
        yield server


@pytest.fixture(scope="session")
def keyed(small_repository: Path) -> Iterator[EmbeddedServer]:
    """A server whose restricted APIs, such as shared memory, are open to holders of ADMIN_KEY."""
    at, access = Endpoints.free(), Access(admin_key=ADMIN_KEY)
    with EmbeddedServer(small_repository, endpoints=at, access=access, arguments=HASTE) as server:
        yield server


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def birds(server: EmbeddedServer, protocol: str) -> Iterator[Classifier]:
    """A client for the `birds` ensemble, over each protocol."""
    with Classifier(url(server, protocol), model="birds") as classifier:
        yield classifier


def run_python(code: str) -> str:
    """Run code in a new Python process and return its output.

    The process must exit with 0 and print nothing to standard error, warnings of Python's
    development mode included.
    """
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
