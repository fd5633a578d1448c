"""Finds GPUs, and checks what serving on them needs."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from scripts.embedded.cuda_probe import DRIVER
from scripts.embedded.gpu_memory import pool_options
from scripts.embedded.installation import ServerError
from scripts.embedded.view import CONFIG, View, read_config
from scripts.repository import manifest
from scripts.repository.tuning import Tuning

# Tells the backend of the graphs in the server that these must run on a GPU.
VARIABLE = "GRAPHS_ON_GPU"
PROBE = Path(__file__).with_name("cuda_probe.py")
PROBE_SECONDS = 120  # loading onnxruntime's CUDA libraries reads gigabytes from the disk

# The oldest NVIDIA driver for each major version of CUDA.
# https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/
DRIVERS = {12: 525, 13: 580}
INSTALL = "in a new environment run: pip install --group gpu"


@dataclass(frozen=True)
class Findings:
    """What a process of the server can do with CUDA.

    Attributes:
        driver: the file of the driver's library; None if it is not found.
        driver_error: why the driver has no GPU; None if it has.
        driver_cuda: the newest CUDA of the driver: 13000 for CUDA 13.0.
        gpus: the names of the GPUs that the server sees, in CUDA's order.
        packages: the installed ones of `onnxruntime` and `onnxruntime-gpu`.
        onnxruntime_cuda: the CUDA that onnxruntime is built for, such as `13.0`; None without CUDA.
        library_error: why onnxruntime's CUDA provider cannot be loaded; None if it can.
    """

    driver: str | None = None
    driver_error: str | None = None
    driver_cuda: int = 0
    gpus: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    onnxruntime_cuda: str | None = None
    library_error: str | None = None

    def check(self) -> None:
        """Raise ServerError, whose message says what to do, unless graphs can run on a GPU."""
        for problem in (self._driver_problem(), self._onnxruntime_problem()):
            if problem:
                raise ServerError(f"--gpu: {problem}")

    def _driver_problem(self) -> str | None:
        if not self.driver:
            return (
                f"no NVIDIA driver ({self.driver_error}); install it, so that nvidia-smi lists a "
                "GPU, or leave out --gpu"
            )
        if self.driver_error or not self.gpus:
            return (
                f"the NVIDIA driver has no GPU ({self.driver_error or 'it lists none'}); see "
                "nvidia-smi and CUDA_VISIBLE_DEVICES, or leave out --gpu"
            )
        return None

    def _onnxruntime_problem(self) -> str | None:
        if len(self.packages) > 1:
            return f"{' and '.join(self.packages)} overwrite each other's files; {INSTALL}"
        if not self.onnxruntime_cuda:
            return f"the installed onnxruntime does not have CUDA; {INSTALL}"
        needed = int(self.onnxruntime_cuda.partition(".")[0])
        if self.driver_cuda // 1000 < needed:
            known = f"{self.driver_cuda // 1000}.{self.driver_cuda % 1000 // 10}"
            newer = f" {DRIVERS[needed]} or newer" if needed in DRIVERS else ""
            return (
                f"the NVIDIA driver has CUDA {known}, and onnxruntime needs {needed}; install a "
                f"newer driver{newer and ':' + newer}"
            )
        if self.library_error:
            return f"onnxruntime cannot load CUDA ({self.library_error}); {INSTALL}"
        return None

    def link(self, folder: Path) -> Path:
        """Create `folder` with the driver's library under the name that Triton looks for.

        Some machines, and some containers, have it as `libcuda.so.1` only. Then Triton's Python
        backend would copy each tensor from the GPU to the host.
        """
        folder.mkdir()
        (folder / "libcuda.so").symlink_to(self.driver or DRIVER)
        return folder

    @property
    def options(self) -> list[str]:
        """The options for tritonserver."""
        return pool_options(range(len(self.gpus)))


def find(environment: Mapping[str, str]) -> Findings:
    """Find what a process with this environment can do with CUDA.

    Raises:
        ServerError: the search fails or does not end, as with a damaged driver.
    """
    try:
        result = subprocess.run(
            [sys.executable, str(PROBE)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"--gpu: CUDA does not answer for {PROBE_SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        line = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ServerError(
            f"--gpu: CUDA cannot be used: exit code {error.returncode}, {line}"
        ) from error
    found = json.loads(result.stdout)
    lists = {name: tuple(values) for name, values in found.items() if isinstance(values, list)}
    return Findings(**found | lists)


def libraries() -> list[str]:
    """Return the folders in which NVIDIA's wheels have CUDA's libraries."""
    # The package `nvidia` names only some of them if one of the wheels has an __init__.py in it.
    found = (sorted(Path(folder).glob("nvidia/*/lib")) for folder in sys.path)
    return [str(each) for folders in found for each in folders]


def variables(*, gpu: bool) -> dict[str, str]:
    """Return what a server's environment has in addition; without `gpu` it sees no GPU."""
    return {VARIABLE: "1"} if gpu else {VARIABLE: "", "CUDA_VISIBLE_DEVICES": ""}


def check_models(view: View, *, gpu: bool) -> list[str]:
    """Compare what models are built for with where the server runs.

    Returns:
        Lines for the user about graphs that run, but not as they were built to.

    Raises:
        ServerError: a model cannot run there.
    """
    built = _devices(view)
    if gpu:
        for name in (name for name, device in built.items() if device == "cpu"):
            raise ServerError(
                f"{name} is built for a CPU; build it with --device gpu, or leave out --gpu"
            )
        return []
    for part in filter(lambda part: _needs_gpu(view.repository / part / CONFIG), view.parts):
        raise ServerError(f"{part} needs a GPU; give --gpu, or build it with --preprocess cpu")
    names = ", ".join(name for name, device in built.items() if device == "gpu")
    return [f"{names}: built for a GPU, and runs on the CPU; give --gpu"] if names else []


def _devices(view: View) -> dict[str, str]:
    """Return the device that each classifier, of which a graph is loaded, is built for."""
    if view.state is None:
        return {}
    return {
        name: (entry.tuning or Tuning()).device
        for name, entry in manifest.read(view.repository).items()
        if any(entry.parts.get(role) in view.parts for role in manifest.GRAPH_ROLES)
    }


def _needs_gpu(file: Path) -> bool:
    config = read_config(file) if file.exists() else None  # Triton says which model is missing
    groups = config.instance_group if config else ()
    return any(group.kind == pb.ModelInstanceGroup.KIND_GPU for group in groups)
