"""The start of the server's container, as far as it comes without becoming tritonserver."""

import os
from pathlib import Path

import pytest

from scripts.container import health, serve


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
