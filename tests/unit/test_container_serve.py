"""The start of the server's container, as far as it comes without becoming tritonserver."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.container import health, serve
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with which the health check finds the server."""
    monkeypatch.setattr(health, "STATE", tmp_path / "state")
    return tmp_path / "state"


def start(key: Path | str) -> int:
    options = ["--admin-key-file", str(key), "--model-repository", "nowhere"]
    return serve.main([*options, "--", "no-such-tritonserver", "--model=x"])


def test_a_missing_server_is_one_clear_line(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "admin.key"
    key.write_text("correct-horse-battery-staple\n")
    for file in (key, "/dev/null"):
        assert start(file) == 1
        assert capsys.readouterr().err.startswith("error: no-such-tritonserver: No such file")
    assert state.read_text().split()[0] == str(os.getpid())


def test_an_unusable_key_is_one_clear_line(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "admin.key"
    assert start(key) == 1
    assert str(key) in capsys.readouterr().err
    key.touch()
    assert start(key) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {key} must hold the administrator's key")
    assert not state.exists()


def test_the_memory_for_tensors_on_a_gpu_can_be_chosen() -> None:
    code = (
        "import pathlib, sys; from scripts.container import health, serve; "
        "health.STATE = pathlib.Path('/dev/null'); sys.exit(serve.main(sys.argv[1:]))"
    )
    options = ["--admin-key-file", "/dev/null", "--model-repository", "nowhere"]
    command = ["--", "echo", "--cuda-memory-pool-byte-size=1:0"]
    printed = subprocess.run(
        [sys.executable, "-c", code, *options, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    default = "--cuda-memory-pool-byte-size={}:536870912"
    assert printed[:16] == [default.format(number) for number in range(16)]
    assert printed[16] == "--cuda-memory-pool-byte-size=1:0"
