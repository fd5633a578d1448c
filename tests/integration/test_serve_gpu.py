"""A real Triton with and without `gpu`, on a machine without a GPU.

Where a server is told that it has GPUs, the findings are a stand-in; what Triton does is real.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput

from scripts import serve
from scripts.embedded import EmbeddedServer, Endpoints, ServerError, gpu, installation
from scripts.repository import builder, sources
from scripts.repository.tuning import Tuning
from tests.graphs import FLEXIBLE, Array, classifier
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
# Lets a copy of the backend take its instances and their inputs for some on a GPU.
STAND_IN = """
import numpy


class TritonPythonModel(TritonPythonModel):
    def load(self, path, config, args):
        super().load(path, config, args | {"model_instance_kind": "GPU"})

    def read(self, tensor):
        assert tensor.is_cpu()
        return self.bound.device.arrays.from_dlpack(tensor)


def _gpu(number, settings):
    return Device("cpu", arrays=numpy)


def _on_cuda(path, options, cuda):
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
"""
BATCHES = [number % 5 + 1 for number in range(60)]


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
        assert server.gpus == FOUND.gpus
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


def test_requests_are_answered_by_sessions_for_batches_of_one_size(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backends = tmp_path / "backends"
    shutil.copytree(installation.OWN_BACKENDS, backends)
    with (backends / "onnxruntime" / "model.py").open("a") as file:
        file.write(STAND_IN)
    monkeypatch.setattr(installation, "OWN_BACKENDS", backends)
    images = np.random.default_rng(0).standard_normal((max(BATCHES), 3, 32, 32)).astype(np.float32)
    at = Endpoints.free()

    def scores_of(count: int) -> Array:
        tensor = InferInput("image", [count, *images.shape[1:]], "FP32")
        tensor.set_data_from_numpy(images[:count])
        scores: Array = client.infer("birds_onnx", [tensor]).as_numpy("scores")
        return scores

    with (
        EmbeddedServer(repository, models=["birds_onnx"], endpoints=at, arguments=HASTE),
        InferenceServerClient(at.at("grpc")) as client,
        ThreadPoolExecutor(len(BATCHES)) as pool,
    ):
        answers = list(pool.map(scores_of, BATCHES))
        (model,) = client.get_inference_statistics("birds_onnx", as_json=True)["model_stats"]
    file_of_graph = repository / "birds_onnx" / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(file_of_graph, providers=["CPUExecutionProvider"])
    (expected,) = session.run(["scores"], {"image": images})
    for count, scores in zip(BATCHES, answers, strict=True):
        np.testing.assert_allclose(scores, expected[:count], rtol=1e-4, atol=1e-6)
    assert int(model["execution_count"]) < len(BATCHES)  # some requests were run together
