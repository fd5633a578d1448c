"""Fixtures for all tests, and the signal handling that their servers need."""

import shutil
import signal
from pathlib import Path

import onnx
import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.graphs import FLEXIBLE, classifier

ROOT = Path(__file__).resolve().parents[1]

# A shell starts background jobs with SIGINT ignored, and nohup starts commands with SIGHUP ignored.
# Child processes inherit an ignored signal but not a handler, so servers started by the tests
# would not stop on these signals. SIGHUP must still not end pytest itself.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


# `make test` runs the unit tests and the files below in two processes; unit tests in one of them,
# since large images that two processes decode would wait for each other. The other tests run after
# them, alone, since they share the server of all classifiers, measure times or make servers fail.
BESIDE = frozenset(
    f"test_{name}.py"
    for name in (
        *("access", "adapt", "crops", "demo", "docker", "evaluate", "evaluate_layouts"),
        *("gpu_preprocess", "hub", "image_client", "int8", "own_model", "own_models", "readme"),
        *("reference", "serve_gpu", "tensorrt", "tensors", "wheel"),
    )
)


class Groups(LoadScopeScheduling):  # type: ignore[misc]
    """Runs the unit tests in one process, and the tests of each other file."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        return file.name if file.name in BESIDE else file.parent.name


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Groups:
    """Let pytest-xdist schedule the tests by their groups."""
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that run alone."""
    for item in items:
        if item.path.parent.name != "unit" and item.path.name not in BESIDE:
            item.add_marker("alone")


@pytest.fixture(scope="session")
def shared_assets() -> Path:
    """Test data that is too large, or not ours, to be part of the project."""
    folder = ROOT.parent / "shared" / "assets"
    if not folder.is_dir():
        pytest.skip(f"test data not found: {folder}")
    return folder


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """The file of a ten-class classifier."""
    file = tmp_path / "birds.onnx"
    onnx.save(classifier(FLEXIBLE), file)
    return file


@pytest.fixture
def curl() -> None:
    """Skip the test if curl is not installed; pip cannot install it."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")


@pytest.fixture
def short_wait_for_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client give up at once on a named pipe without a writer."""
    monkeypatch.setattr("client._sources.PIPE_SECONDS", 0.01)
