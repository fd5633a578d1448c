"""A real Triton with and without `gpu`, on a machine without a GPU.

Where a server is told that it has GPUs, the findings are a stand-in; what Triton does is real.
"""

from pathlib import Path

import onnx
import psutil
import pytest

from scripts import serve
from scripts.embedded import EmbeddedServer, Endpoints, ServerError, gpu
from scripts.repository import builder, sources
from scripts.repository.tuning import Tuning
from tests.graphs import FLEXIBLE, classifier
from tests.integration.conftest import HASTE, process_of

NO_DRIVER = "libcuda.so.1: cannot open shared object file: No such file or directory"
FOUND = gpu.Findings(
    driver="/no/such/libcuda.so.1",
    driver_cuda=13000,
    gpus=("NVIDIA H200", "NVIDIA H200"),
    packages=("onnxruntime-gpu",),
    onnxruntime_cuda="13.0",
)
MODEL = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([]) for _ in requests]
"""
CONFIG = """
    backend: "python" max_batch_size: 1
    input { name: "IN" data_type: TYPE_FP32 dims: 1 }
    output { name: "OUT" data_type: TYPE_FP32 dims: 1 }
    instance_group { kind: KIND_CPU count: 1 }
"""


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    if gpu.find({}).driver:
        pytest.skip("this machine has a driver")
    monkeypatch.setattr(gpu, "find", lambda _: FOUND)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A classifier that is built for a GPU."""
    onnx.save(classifier(FLEXIBLE), tmp_path / "birds.onnx")
    source = sources.from_file(tmp_path / "birds.onnx", "birds")
    builder.add(tmp_path / "models", source, tuning=Tuning("gpu"))
    return tmp_path / "models"


@pytest.fixture
def step(tmp_path: Path) -> Path:
    """A repository of one model, which runs on the CPU."""
    (tmp_path / "step" / "1").mkdir(parents=True)
    (tmp_path / "step" / "config.pbtxt").write_text(CONFIG)
    (tmp_path / "step" / "1" / "model.py").write_text(MODEL)
    return tmp_path


def test_the_command_says_in_one_line_that_there_is_no_driver(
    repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if gpu.find({}).driver:
        pytest.skip("this machine has a driver")
    assert serve.main(["--gpu", "--model-repository", str(repository)]) == 1
    assert capfd.readouterr().err == (
        f"error: --gpu: no NVIDIA driver ({NO_DRIVER}); install it, so that nvidia-smi lists a "
        "GPU, or leave out --gpu\n"
    )


def test_a_server_without_gpu_sees_none(small_server: EmbeddedServer) -> None:
    server = process_of(small_server)
    for process in (server, *server.children(recursive=True)):
        assert process.environ()["CUDA_VISIBLE_DEVICES"] == ""
    assert "--allow-gpu-metrics=false" in server.cmdline()


@pytest.mark.usefixtures("found")
def test_each_process_of_a_server_gets_the_gpus(step: Path) -> None:
    with EmbeddedServer(step, endpoints=Endpoints.free(), gpu=True, arguments=HASTE) as server:
        seen = {process_of(server)}
        assert_has_gpus(process_of(server), server.folder)
        server.restart()
        seen.add(process_of(server))
        assert_has_gpus(process_of(server), server.folder)
        server.replace(abrupt=True)
        process = psutil.Process(server.running.process)
        assert_has_gpus(process, server.folder)
        assert process not in seen


def assert_has_gpus(process: psutil.Process, folder: Path) -> None:
    command, environment = process.cmdline(), process.environ()
    assert set(FOUND.options) <= set(command)
    assert "--allow-gpu-metrics=false" not in command
    assert "CUDA_VISIBLE_DEVICES" not in environment
    libraries = folder / "libraries"
    assert str(libraries) in environment["LD_LIBRARY_PATH"].split(":")
    assert str((libraries / "libcuda.so").readlink()) == FOUND.driver


@pytest.mark.usefixtures("found")
def test_a_graph_does_not_run_on_the_cpu_of_a_server_on_a_gpu(repository: Path) -> None:
    server = EmbeddedServer(repository, endpoints=Endpoints.free(), gpu=True, arguments=HASTE)
    with pytest.raises(ServerError) as caught:
        server.start()
    assert str(caught.value).startswith(f"cannot serve {repository}: failed to load 'birds_")
    assert str(caught.value).endswith(
        "onnxruntime: the server has --gpu, but this instance is on the CPU: Triton found no GPU, "
        "or instance_group has KIND_CPU"
    )


@pytest.mark.usefixtures("found")
def test_a_repository_for_a_cpu_is_refused_before_triton_starts(small_repository: Path) -> None:
    server = EmbeddedServer(small_repository, endpoints=Endpoints.free(), gpu=True)
    with pytest.raises(ServerError, match=r"^birds is built for a CPU; build it with --device gpu"):
        server.start()
