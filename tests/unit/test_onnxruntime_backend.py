"""The embedded onnxruntime backend on a GPU instance, without a server and without a GPU.

Stand-ins: Triton's own module, and onnxruntime's CPU provider and NumPy for CUDA and CuPy.
"""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from scripts.embedded.backends.onnxruntime import bound_sessions
from tests.graphs import CLASSES, FLEXIBLE, Array, classifier

IMAGES = np.random.default_rng(0).standard_normal((5, 3, 32, 32)).astype(np.float32)


class Tensor:
    """An input, or an output, of Triton; an input can be in a GPU's memory."""

    def __init__(self, name: str, array: Array, *, on_gpu: bool = False) -> None:
        self.name, self.array, self.on_gpu = name, array, on_gpu

    def is_cpu(self) -> bool:
        return not self.on_gpu

    def as_numpy(self) -> Array:
        assert not self.on_gpu
        return self.array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The backend's module, as the server has it."""
    utils: Any = ModuleType("triton_python_backend_utils")
    utils.TritonModelException = RuntimeError
    utils.TritonError = SimpleNamespace(INTERNAL=1, INVALID_ARG=2)
    utils.Tensor = Tensor
    utils.InferenceResponse = lambda tensors: tensors
    utils.get_input_tensor_by_name = lambda request, name: request[name]
    names = (
        "scripts.embedded.backends.python.graph_model",
        "scripts.embedded.backends.onnxruntime",
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    monkeypatch.setitem(sys.modules, "bound_sessions", bound_sessions)
    monkeypatch.setitem(sys.modules, "graph_model", importlib.import_module(names[0]))
    yield importlib.import_module(f"{names[1]}.model")
    for name in (names[0], f"{names[1]}.model"):
        sys.modules.pop(name, None)


def arguments(folder: Path, kind: str = "GPU", **config: Any) -> dict[str, str]:
    """What Triton gives to an instance of a classifier's graph."""
    graph = classifier(FLEXIBLE, image="float[N,3,32,32]", scores=f"float[N,{CLASSES}]")
    (folder / "1").mkdir()
    onnx.save(graph, folder / "1" / "model.onnx")
    model: dict[str, Any] = {
        "input": [{"name": "image", "data_type": "TYPE_FP32"}],
        "output": [{"name": "scores"}],
        "default_model_filename": "",
        "max_batch_size": 4,
        "model_warmup": [{"batch_size": 1}],
        "parameters": {},
    }
    return {
        "model_config": json.dumps(model | config),
        "model_repository": str(folder),
        "model_version": "1",
        "model_name": "birds_onnx",
        "model_instance_name": "birds_onnx_0_0",
        "model_instance_kind": kind,
        "model_instance_device_id": "0",
    }


def scores_of(model: Any, requests: list[Tensor]) -> list[Array]:
    responses = model.execute([{"image": request} for request in requests])
    return [scores.array for (scores,) in responses]


def test_requests_in_both_memories_are_answered(
    backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[dict[str, str]] = []

    def on_cpu(path: Path, options: Any, cuda: dict[str, str]) -> onnxruntime.InferenceSession:
        used.append(cuda)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(backend, "_on_cuda", on_cpu)
    monkeypatch.setattr(backend, "_gpu", lambda *_: bound_sessions.Device("cpu", arrays=np))
    model = backend.TritonPythonModel()
    accelerator = {"name": "cuda", "parameters": {"prefer_nhwc": "1", "device_id": "7"}}
    accelerators = {"gpu_execution_accelerator": [accelerator]}
    model.initialize(arguments(tmp_path, optimization={"execution_accelerators": accelerators}))
    options = {"prefer_nhwc": "1", "cudnn_conv_algo_search": "HEURISTIC", "device_id": "0"}
    assert used == [used[0]] * 2  # sessions for one image and for four
    assert options.items() <= used[0].items()
    requests = [
        Tensor("image", IMAGES[:1], on_gpu=True),
        Tensor("image", IMAGES[1:3]),
    ]
    first, second = scores_of(model, requests)
    pooled = IMAGES.mean((2, 3))
    weight = np.random.default_rng(0).standard_normal((3, CLASSES)).astype(np.float32)
    np.testing.assert_allclose(first, pooled[:1] @ weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(second, pooled[1:3] @ weight, rtol=1e-4, atol=1e-6)
    (single,) = scores_of(model, requests[1:])
    np.testing.assert_allclose(single, second, rtol=1e-5)


def test_a_graph_that_would_run_on_the_cpu_does_not_load_on_a_gpu(
    backend: Any, tmp_path: Path
) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        expected = "onnxruntime: cannot use CUDA: "
    else:
        expected = "onnxruntime: it does not have CUDA; in a new environment: pip install --group"
    with pytest.raises(RuntimeError) as caught:
        backend.TritonPythonModel().initialize(arguments(tmp_path))
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_an_instance_on_the_cpu_does_not_load_in_a_server_on_a_gpu(
    backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHS_ON_GPU", "1")
    with pytest.raises(RuntimeError, match="server has --gpu, but this instance is on the CPU"):
        backend.TritonPythonModel().initialize(arguments(tmp_path, kind="CPU"))


def test_tensors_on_the_gpu_need_cupy(
    backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    settings = {"FORCE_CPU_ONLY_INPUT_TENSORS": {"string_value": "no"}}
    with pytest.raises(RuntimeError, match="CuPy is not installed; run: pip install --group gpu"):
        backend.TritonPythonModel().initialize(arguments(tmp_path, parameters=settings))


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (
            "[1;31m2026-11-30 [E:onnxruntime:Default, bridge.cc:24 operator()] FAIL : Failed to "
            "load library /opt/cuda.so with error: libcublasLt.so.13: cannot open\n[m\n",
            "libcublasLt.so.13: cannot open",
        ),
        (
            "2026 [W:onnxruntime: a.cc] no\n2026 [E:onnxruntime: b.cc] CUDA failure 100: no device",
            "CUDA failure 100: no device",
        ),
    ],
)
def test_the_reason_is_found_in_what_onnxruntime_logs(backend: Any, log: str, why: str) -> None:
    assert backend.REASON.search(log)["why"] == why


def test_what_a_library_writes_to_standard_error_is_read(backend: Any) -> None:
    written = backend._errors_of(lambda: os.write(2, b"[E:onnxruntime: a.cc] broken\n"))  # noqa: SLF001
    assert backend.REASON.search(written)["why"] == "broken"
