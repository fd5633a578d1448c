"""The distributions that the project publishes, built from a copy of the checkout."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info")


@dataclass(frozen=True)
class Distributions:
    wheel: Path
    sdist: Path


def build(folder: Path) -> Distributions:
    """Build a source distribution and, from it, the wheel, with the installed setuptools."""
    source, output = folder / "source", folder / "dist"
    for name in ("client", "scripts"):
        shutil.copytree(ROOT / name, source / name, ignore=IGNORED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        str(output),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,), (sdist,) = output.glob("*.whl"), output.glob("*.tar.gz")
    return Distributions(wheel, sdist)
