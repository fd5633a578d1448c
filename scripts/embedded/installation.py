"""Finds the Triton that pip installs and puts its parts where Triton expects them."""

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from scripts.errors import UserError

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
OWN_BACKENDS = Path(__file__).parent / "backends"

# By default glibc returns each image's buffers to the kernel and requests them again, which costs
# hundreds of page faults an image. With these settings it keeps them, in huge pages;
# docs/performance.md has measurements.
GLIBC_TUNABLES = ":".join(
    (
        "glibc.malloc.trim_threshold=536870912",
        "glibc.malloc.mmap_threshold=536870912",
        "glibc.malloc.top_pad=67108864",
        "glibc.malloc.hugetlb=1",
    )
)


class ServerError(UserError):
    """The server cannot run."""


@dataclass(frozen=True)
class Installation:
    """The paths of the embedded Triton's parts.

    Attributes:
        triton: the wheel's folder with the server.
        libraries: the folder with the wheel's shared libraries.
        stub: the executable that runs Python backend models on this version of Python.
        libpython: the folder with the shared library of the running Python.
    """

    triton: Path
    libraries: Path
    stub: Path
    libpython: Path

    @property
    def executable(self) -> Path:
        """The server's executable."""
        return self.triton / "bin" / "tritonserver"

    @property
    def caches(self) -> Path:
        """The folder for `--cache-directory`."""
        return self.triton / "caches"

    def copy_backends(self, folder: Path) -> None:
        """Create `folder` as a backend directory with `python`, `onnxruntime` and `openvino`.

        The backends are copied, since Triton does not follow symbolic links to them.
        """
        shutil.copytree(OWN_BACKENDS, folder)
        shutil.copytree(self.triton / "backends" / "python", folder / "python", dirs_exist_ok=True)
        shutil.copy(self.stub, folder / "python")

    def environment(self, folders: Sequence[str] = ()) -> dict[str, str]:
        """Return this process's environment, changed so that the stub runs on this Python.

        Shared libraries are found in `folders`, too.
        """
        libraries = [str(self.libraries), str(self.libpython), *folders]
        return {"GLIBC_TUNABLES": GLIBC_TUNABLES, **os.environ} | {
            "LD_LIBRARY_PATH": prepend(libraries, "LD_LIBRARY_PATH"),
            # The stub uses the packages of the first `python3` on the path.
            "PATH": prepend([str(Path(sys.executable).parent)], "PATH"),
        }


def find() -> Installation:
    """Find the parts for the running Python.

    Raises:
        ServerError: a part is missing or not compatible.
    """
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise ServerError("Triton is not installed; run: pip install --group serve")
    package = Path(spec.submodule_search_locations[0])
    triton = package / "tritonserver"
    stub = triton / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    if not stub.exists():
        raise ServerError(f"this Triton has no stub for Python {PYTHON}; use Python 3.10 to 3.12")
    if int(version("numpy").partition(".")[0]) > 1:
        raise ServerError("this Triton needs NumPy 1; run: pip install 'numpy<2'")
    return Installation(
        triton=triton,
        libraries=package.parent / "nvidia_pytriton.libs",
        stub=stub,
        libpython=_libpython_folder(),
    )


def _libpython_folder() -> Path:
    name = f"libpython{PYTHON}.so.1.0"
    # LIBDIR was set when Python was built; a relocated Python has the library below its prefix.
    folders = [Path(sysconfig.get_config_var("LIBDIR") or ""), Path(sys.base_prefix, "lib")]
    for folder in folders:
        if (folder / name).exists():
            return folder
    raise ServerError(
        f"this Python has no {name}, which Triton needs; on Debian and Ubuntu run: "
        f"apt-get install libpython{PYTHON}"
    )


def prepend(entries: list[str], variable: str) -> str:
    """Return the value of a path-like environment variable with `entries` at its start."""
    return os.pathsep.join([*entries, *filter(None, [os.environ.get(variable)])])
