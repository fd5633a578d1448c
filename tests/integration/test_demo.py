"""`python -m scripts.demo` without a network."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from scripts import demo
from scripts.repository.catalog import CATALOG
from tests.commands import measured
from tests.conftest import ROOT
from tests.integration.conftest import alive

DEMO = "tests.small_demo"


@pytest.fixture
def offline(tmp_path: Path) -> dict[str, str]:
    """Set a proxy that does not exist; local connections must not use it."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    return os.environ | proxies | {"no_proxy": "", "HF_HOME": str(tmp_path)}


def test_the_model_is_one_of_the_catalogue() -> None:
    assert demo.MODEL in CATALOG


def test_demo_without_a_network_uses_synthetic_weights(
    offline: dict[str, str],
) -> None:
    result = subprocess.run(
        measured(DEMO),
        cwd=ROOT,
        env=offline,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Connection refused" in result.stderr
    assert "SYNTHETIC WEIGHTS" in result.stdout
    assert "mean nothing" in result.stdout
    assert result.stdout.count("%") == 5
    assert " ms" in result.stdout
    assert "Triton is stopped" in result.stdout


def test_signal_leaves_no_server(offline: dict[str, str]) -> None:
    command = [sys.executable, "-u", "-m", DEMO]
    process = subprocess.Popen(command, cwd=ROOT, env=offline, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert any("Starting Triton" in line for line in process.stdout)
    started: list[psutil.Process] = []
    while not started:
        started = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    assert process.wait(timeout=60) == 130
    assert alive(started) == []
