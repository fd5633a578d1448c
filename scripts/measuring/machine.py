"""The machine that a benchmark ran on."""

import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from scripts.repository.tuning import cores

PACKAGES = ("onnxruntime", "pillow", "numpy")
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Machine:
    """The CPU, the cores that this process may use, and package versions."""

    cpu: str
    cores: int
    versions: dict[str, str]


def this(triton: str) -> Machine:
    """Describe this machine; `triton` is the version of the measured server."""
    found = re.search(r"^model name\s*:\s*(.+)$", CPU_INFO.read_text(), re.MULTILINE)
    versions = {name: version(name) for name in PACKAGES} | {"triton": triton}
    return Machine(found[1] if found else "unknown CPU", cores(), versions)
