"""`python -m scripts.demo` where no network is."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_without_a_network_it_says_so_and_goes_on_with_synthetic_weights(tmp_path: Path) -> None:
    # A proxy that is not there stands for a network that is not; nothing local may go through it.
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    offline = proxies | {"no_proxy": "", "XDG_CACHE_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-m", "scripts.demo"],
        cwd=ROOT,
        env=os.environ | offline,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "no connection" in result.stderr
    assert "SYNTHETIC WEIGHTS" in result.stdout
    assert "mean nothing" in result.stdout
    assert result.stdout.count("%") == 5
    assert " ms" in result.stdout
    assert "Triton is stopped" in result.stdout
