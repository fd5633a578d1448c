"""The machine that a benchmark ran on."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from scripts.repository.tuning import cores

PACKAGES = ("onnxruntime", "pillow", "numpy")
CPU_INFO = Path("/proc/cpuinfo")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Machine:
    """The CPU, the cores that this process may use, and package versions.

    `commit` is the checkout's commit; None outside of a checkout.
    """

    cpu: str
    cores: int
    versions: dict[str, str]
    commit: str | None


def this(triton: str) -> Machine:
    """Describe this machine; `triton` is the version of the measured server."""
    found = re.search(r"^model name\s*:\s*(.+)$", CPU_INFO.read_text(), re.MULTILINE)
    return Machine(
        cpu=found[1] if found else "unknown CPU",
        cores=cores(),
        versions={name: version(name) for name in PACKAGES} | {"triton": triton},
        commit=_commit(),
    )


def _commit() -> str | None:
    git = shutil.which("git")
    if not git:
        return None
    command = [git, "-C", str(ROOT), "rev-parse", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None
