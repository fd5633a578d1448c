"""Finds the Triton that pip installs and puts its parts where Triton looks for them."""

import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
OWN_BACKENDS = Path(__file__).parent / "backends"

# glibc gives each image's buffers back to the kernel and takes them again, which costs hundreds of
# page faults an image; here it keeps them, in large pages. docs/performance.md has what it gives.
GLIBC_TUNABLES = ":".join(
    (
        "glibc.malloc.trim_threshold=536870912",
        "glibc.malloc.mmap_threshold=536870912",
        "glibc.malloc.top_pad=67108864",
        "glibc.malloc.hugetlb=1",
    )
)


class ServerError(Exception):
    """The server cannot run; the message is one line that says what to do next."""


@dataclass(frozen=True)
class Installation:
    """Where the parts of the embedded Triton are.

    `triton` is the wheel's server folder, `libraries` are the shared libraries beside it, `stub`
    runs Python backend models on this very Python, whose shared library lies in `libpython`.
    """

    triton: Path
    libraries: Path
    stub: Path
    libpython: Path

    @property
    def executable(self) -> Path:
        """The server itself."""
        return self.triton / "bin" / "tritonserver"

    @property
    def caches(self) -> Path:
        """The folder for `--cache-directory`."""
        return self.triton / "caches"

    def copy_backends(self, folder: Path) -> None:
        """Make `folder` a backend directory that holds `python` and `onnxruntime`.

        Copies, since Triton takes no backend that a symbolic link leads to.
        """
        shutil.copytree(OWN_BACKENDS, folder)
        shutil.copytree(self.triton / "backends" / "python", folder / "python")
        shutil.copy(self.stub, folder / "python")

    def environment(self) -> dict[str, str]:
        """Give this process's environment, changed so that the stub runs on this Python."""
        libraries = [str(self.libraries), str(self.libpython)]
        return {"GLIBC_TUNABLES": GLIBC_TUNABLES, **os.environ} | {
            "LD_LIBRARY_PATH": prepend(libraries, "LD_LIBRARY_PATH"),
            # The stub takes the packages of the first `python3` on the path.
            "PATH": prepend([str(Path(sys.executable).parent)], "PATH"),
            # A model repository stays as it was built, also where it is writable.
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def find() -> Installation:
    """Find the parts for the running Python.

    Raises:
        ServerError: something is missing or does not fit.
    """
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise ServerError("Triton is not installed here; run: pip install '.[serve]'")
    package = Path(spec.submodule_search_locations[0])
    triton = package / "tritonserver"
    stub = triton / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    if not stub.exists():
        raise ServerError(f"this Triton has no stub for Python {PYTHON}; use Python 3.10 to 3.12")
    if int(version("numpy").partition(".")[0]) > 1:
        raise ServerError("Triton's stub misreads arrays of NumPy 2; run: pip install 'numpy<2'")
    return Installation(
        triton=triton,
        libraries=package.parent / "nvidia_pytriton.libs",
        stub=stub,
        libpython=_libpython_folder(),
    )


def _libpython_folder() -> Path:
    name = f"libpython{PYTHON}.so.1.0"
    # LIBDIR is where Python was built to be; a Python that was moved has it below its prefix.
    folders = [Path(sysconfig.get_config_var("LIBDIR") or ""), Path(sys.base_prefix, "lib")]
    for folder in folders:
        if (folder / name).exists():
            return folder
    raise ServerError(
        f"this Python comes without {name}, which Triton needs; on Debian and Ubuntu run: "
        f"apt-get install libpython{PYTHON}"
    )


def prepend(entries: list[str], variable: str) -> str:
    """Put entries before those that a path-like environment variable has."""
    return os.pathsep.join([*entries, *filter(None, [os.environ.get(variable)])])
