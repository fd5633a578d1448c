"""What all tests share."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_assets() -> Path:
    """Test data that is too large, or not ours, to be part of the project."""
    folder = ROOT.parent / "shared" / "assets"
    if not folder.is_dir():
        pytest.skip(f"the test data is not at hand: no {folder}")
    return folder


@pytest.fixture
def curl() -> None:
    """Skip where curl is not installed: it is the only thing here that pip does not bring."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
