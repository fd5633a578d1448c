"""What `scripts.serve --gpu` needs, and what it says if that is missing; without a GPU.

Where a test needs the driver of NVIDIA, it compiles a stand-in for it.
"""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.embedded import ServerError, cuda_probe, gpu
from scripts.embedded.gpu import Findings
from scripts.embedded.pools import pools_of
from scripts.embedded.view import view
from scripts.repository import builder, sources
from scripts.repository.tuning import Tuning

H200 = "NVIDIA H200"
WORKING = Findings(
    driver="/usr/lib/libcuda.so.580.65.06",
    driver_cuda=13000,
    gpus=(H200, H200),
    packages=("onnxruntime-gpu",),
    onnxruntime_cuda="13.0",
)
# Gives the number of GPUs, the version and the error that the environment says.
DRIVER = """
#include <stdlib.h>
#include <string.h>
static int number(const char *name) { return getenv(name) ? atoi(getenv(name)) : 0; }
int cuInit(unsigned flags) { return number("FAKE_ERROR"); }
int cuDriverGetVersion(int *version) { *version = number("FAKE_CUDA"); return 0; }
int cuDeviceGetCount(int *count) { *count = number("FAKE_GPUS"); return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
  strcpy(name, "GPU A");
  name[4] += device;
  return 0;
}
int cuGetErrorName(int error, const char **name) { *name = "CUDA_ERROR_NO_DEVICE"; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "no CUDA-capable device"; return 0; }
"""


def find(libraries: Path | None = None, **settings: int) -> Findings:
    variables = {f"FAKE_{name.upper()}": str(value) for name, value in settings.items()}
    return gpu.find(os.environ | variables | {"LD_LIBRARY_PATH": str(libraries or "")})


def compile_library(file: Path, source: str = "") -> None:
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    command = ["gcc", "-shared", "-fPIC", "-o", str(file), "-x", "c", "-"]
    subprocess.run(command, input=source, text=True, check=True)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a stand-in for libcuda.so.1."""
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libcuda.so.580.65.06"
    compile_library(library, DRIVER)
    (folder / "libcuda.so.1").symlink_to(library)
    return folder


def test_two_gpus_are_found_by_name(driver: Path) -> None:
    found = find(driver, gpus=2, cuda=13000)
    assert found.driver == str(driver / "libcuda.so.580.65.06")
    assert (found.gpus, found.driver_cuda, found.driver_error) == (("GPU A", "GPU B"), 13000, None)


def test_a_driver_without_a_gpu_says_why(driver: Path) -> None:
    found = find(driver, error=100, cuda=13000)
    assert found.gpus == ()
    assert found.driver_error == "CUDA_ERROR_NO_DEVICE: no CUDA-capable device"
    with pytest.raises(ServerError, match=r"has no GPU .CUDA_ERROR_NO_DEVICE: no CUDA-capable dev"):
        found.check()


def test_the_search_is_the_same_in_any_process(
    driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(driver / "libcuda.so.1")
    monkeypatch.setattr(cuda_probe, "DRIVER", file)
    for name, value in {"FAKE_GPUS": "1", "FAKE_CUDA": "12040"}.items():
        monkeypatch.setenv(name, value)
    found = cuda_probe.find()
    assert (found["gpus"], found["driver_cuda"]) == (["GPU A"], 12040)
    assert (found["driver"], found["driver_error"]) == (file, None)
    monkeypatch.setenv("FAKE_ERROR", "999")
    assert cuda_probe.find()["driver_error"] == "CUDA_ERROR_NO_DEVICE: no CUDA-capable device"


def test_the_driver_of_this_machine_is_looked_for() -> None:
    found = find()
    if found.driver:
        pytest.skip("this machine has a driver")
    with pytest.raises(
        ServerError, match=r"^--gpu: no NVIDIA driver .*; install it, so that"
    ) as no:
        found.check()
    assert "libcuda.so.1: cannot open shared object file" in str(no.value)


def test_this_environments_onnxruntime_is_found() -> None:
    found = find()
    assert len(found.packages) == 1
    assert bool(found.onnxruntime_cuda) == (found.packages == ("onnxruntime-gpu",))


def test_onnxruntimes_cuda_and_what_it_needs_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capi = tmp_path / "onnxruntime" / "capi"
    capi.mkdir(parents=True)
    (capi / "build_and_package_info.py").write_text('cuda_version = "13.0"')
    for name in ("shared", "cuda"):
        compile_library(capi / f"libonnxruntime_providers_{name}.so")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise ImportError")  # is not imported
    found = find(tmp_path)
    assert found.onnxruntime_cuda == "13.0"
    assert (found.library_error or "").startswith("libcudnn.so.9: cannot open shared object file")
    compile_library(tmp_path / "libcudnn.so.9")
    assert find(tmp_path).library_error is None


def test_what_works_is_accepted() -> None:
    WORKING.check()
    replace(WORKING, driver_cuda=13030, onnxruntime_cuda="12.8").check()


@pytest.mark.parametrize(
    ("findings", "message"),
    [
        ({"driver": None, "driver_error": "not here"}, r"no NVIDIA driver \(not here\); install"),
        ({"gpus": ()}, r"the NVIDIA driver has no GPU \(it lists none\); see nvidia-smi"),
        (
            {"packages": ("onnxruntime", "onnxruntime-gpu")},
            "onnxruntime and onnxruntime-gpu overwrite each other's files; in a new environment",
        ),
        ({"onnxruntime_cuda": None}, "does not have CUDA; in a new .*: pip install --group gpu"),
        (
            {"driver_cuda": 12040},
            "driver has CUDA 12.4, and onnxruntime needs 13; install a newer driver: 580 or newer",
        ),
        ({"onnxruntime_cuda": "14.1"}, "onnxruntime needs 14; install a newer driver$"),
        ({"library_error": "libcublas.so.13: none"}, r"load CUDA \(libcublas.so.13: none\); in a"),
    ],
)
def test_each_lack_is_one_line_that_says_what_to_do(
    findings: dict[str, object], message: str
) -> None:
    with pytest.raises(ServerError, match=f"^--gpu: .*{message}") as caught:
        replace(WORKING, **findings).check()  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo Traceback >&2; echo 'OSError: broken' >&2; exit 1", "code 1, OSError: broken"),
        ("kill -SEGV $$", "exit code -11, no reason given"),
        ("exec sleep 60", "CUDA does not answer for 0.2 s"),
    ],
)
def test_a_search_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    monkeypatch.setattr(gpu, "PROBE_SECONDS", 0.2)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(ServerError, match=message):
        gpu.find(os.environ)


def test_each_gpu_has_a_pool_and_the_driver_its_short_name(tmp_path: Path) -> None:
    assert WORKING.options == [
        "--cuda-memory-pool-byte-size=0:536870912",
        "--cuda-memory-pool-byte-size=1:536870912",
    ]
    folder = WORKING.link(tmp_path / "libraries")
    assert str((folder / "libcuda.so").readlink()) == WORKING.driver


def test_a_server_without_gpu_hides_the_gpus() -> None:
    assert gpu.variables(gpu=False)["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in gpu.variables(gpu=True)


@pytest.fixture
def repository(tmp_path: Path, graph: Path) -> Path:
    """A repository of `cpu` and `gpu`, each built for its device."""
    for device in ("cpu", "gpu"):
        builder.add(tmp_path / "models", sources.from_file(graph, device), tuning=Tuning(device))
    return tmp_path / "models"


def test_what_is_built_for_a_gpu_runs_on_the_cpu_with_a_warning(repository: Path) -> None:
    (line,) = gpu.check_models(view(repository), gpu=False)
    assert line == "gpu: built for a GPU, and runs on the CPU; give --gpu"
    assert gpu.check_models(view(repository, ["cpu"]), gpu=False) == []
    assert gpu.check_models(view(repository, ["gpu_onnx"]), gpu=False) == [line]


def test_what_is_built_for_a_cpu_is_refused_on_a_gpu(repository: Path) -> None:
    for models in ([], ["cpu"], ["cpu_onnx"]):
        with pytest.raises(ServerError, match=r"^cpu is built for a CPU; build it with --device g"):
            gpu.check_models(view(repository, models), gpu=True)
    assert gpu.check_models(view(repository, ["gpu"]), gpu=True) == []


def test_a_part_that_needs_a_gpu_is_refused_without_one(repository: Path) -> None:
    config = repository / "gpu_preprocess" / "config.pbtxt"
    config.write_text(config.read_text().replace("KIND_CPU", "KIND_GPU"))
    with pytest.raises(ServerError, match=r"^gpu_preprocess needs a GPU; give --gpu, or build it"):
        gpu.check_models(view(repository, ["gpu"]), gpu=False)
    assert gpu.check_models(view(repository, ["gpu"]), gpu=True) == []
    assert gpu.check_models(view(repository, ["cpu"]), gpu=False) == []


def test_models_of_other_origin_are_not_compared(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.pbtxt").write_text('name: "own" backend: "onnxruntime"')
    for on_gpu in (False, True):
        assert gpu.check_models(view(tmp_path), gpu=on_gpu) == []


def test_each_gpu_has_its_processes(tmp_path: Path) -> None:
    for name, config in {
        "graph": 'backend: "onnxruntime"',
        "decode": 'backend: "python" instance_group { count: 3 kind: KIND_GPU }',
        "second": 'backend: "python" instance_group { count: 2 kind: KIND_GPU gpus: [ 1 ] }',
        "postprocess": 'backend: "python" instance_group { count: 4 kind: KIND_CPU }',
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").write_text(config)
    assert pools_of(tmp_path, gpus=2).processes == {"onnxruntime": 2, "python": 2 * 3 + 2 + 4}


def test_the_wheels_folders_of_libraries_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("cu13/lib", "cudnn/lib", "cudnn/include"):
        (tmp_path / "nvidia" / folder).mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    found = gpu.libraries()
    assert [str(tmp_path / "nvidia" / folder) for folder in ("cu13/lib", "cudnn/lib")] == found[:2]
