"""Triton's `onnxruntime` backend, written in Python, for the Triton that pip installs.

That Triton does not include the C++ backend. A model whose config.pbtxt has
`backend: "onnxruntime"` loads here without changes: the model file and the tensors are the same. Of
the C++ backend's settings these apply: the parameters `intra_op_thread_count` and
`inter_op_thread_count`, and those of the accelerator `cuda`, which are options of onnxruntime's
CUDA provider. A graph for the accelerator `tensorrt` runs on CUDA or the CPU, and the log says so.

On a GPU a graph has a session for each batch size of the model's warm-up, and for the largest.
Inputs that are in the GPU's memory stay there, if the parameter `FORCE_CPU_ONLY_INPUT_TENSORS` of
Triton's Python backend is `no`.
"""

import os
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from scripts.embedded.backends.onnxruntime.bound_sessions import (
        BoundSessions,
        Device,
        batch_sizes,
    )
    from scripts.embedded.backends.python.graph_model import GraphModel, join, parameters
else:
    from bound_sessions import BoundSessions, Device, batch_sizes  # as the server has them
    from graph_model import GraphModel, join, parameters

CUDA = "CUDAExecutionProvider"
# An exhaustive search takes longer than HEURISTIC, at the first run of each session, and by the
# reports of others finds nothing faster (https://github.com/PaddlePaddle/PaddleX/pull/5057).
# Memory that doubles with each extension would be wasted once for each session.
CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}
STANDARD_ERROR = 2  # also of what is not written in Python
# In the text that onnxruntime logs when it cannot use CUDA.
REASON = re.compile(r"\[E:[^]]*\] (?:.* with error: )?(?P<why>.+)")


class TritonPythonModel(GraphModel):
    """Runs the model file in sessions of onnxruntime."""

    engine = "onnxruntime"

    def load(self, path: Path, config: dict[str, Any], args: dict[str, str]) -> None:
        """Create the sessions for the model file."""
        accelerators = _accelerators(config)
        settings = parameters(config)
        options = _options(settings)
        on_gpu = args["model_instance_kind"] == "GPU"
        self.bound: BoundSessions | None = None
        if on_gpu:
            device = _gpu(int(args["model_instance_device_id"]), settings)
            cuda = CUDA_OPTIONS | accelerators.get("cuda", {}) | {"device_id": str(device.number)}
            self.bound = BoundSessions(
                lambda: _on_cuda(path, options, cuda),
                device,
                self.inputs,
                self.outputs,
                batch_sizes(config),
            )
        elif os.environ.get("GRAPHS_ON_GPU"):
            raise RuntimeError(
                "the server has --gpu, but this instance is on the CPU: Triton found no GPU, or "
                "instance_group has KIND_CPU"
            )
        else:
            self.session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        if "tensorrt" in accelerators and args["model_instance_name"].endswith("_0"):
            provider = CUDA if on_gpu else "CPUExecutionProvider"
            pb_utils.Logger.log_warn(
                f"{args['model_name']} runs on {provider}: this server does not have TensorRT"
            )

    def read(self, tensor: Any) -> Any:
        """Return a tensor as an array; one in a GPU's memory stays there."""
        if self.bound and self.bound.device.arrays and not tensor.is_cpu():
            return self.bound.device.arrays.from_dlpack(tensor)
        return super().read(tensor)

    def run(self, parts: list[list[Any]]) -> list[Any]:
        """Compute the outputs."""
        if self.bound:
            return self.bound.run(parts)
        arrays = dict(zip(self.inputs, map(join, parts), strict=True))
        results: list[Any] = self.session.run(self.outputs, arrays)
        return results


def _gpu(number: int, settings: dict[str, str]) -> Device:
    if settings.get("FORCE_CPU_ONLY_INPUT_TENSORS") != "no":
        return Device("cuda", number)
    try:
        import cupy  # noqa: PLC0415 - it starts CUDA
    except ImportError as error:
        raise ImportError("CuPy is not installed; run: pip install --group gpu") from error
    cupy.cuda.Device(number).use()
    return Device("cuda", number, cupy, lambda: cupy.cuda.get_current_stream().synchronize())


def _on_cuda(
    path: Path, options: onnxruntime.SessionOptions, cuda: dict[str, str]
) -> onnxruntime.InferenceSession:
    """Create a session on a GPU.

    Raises:
        RuntimeError: onnxruntime cannot use CUDA; it would run the graph on the CPU.
    """
    if CUDA not in onnxruntime.get_available_providers():
        raise RuntimeError("it does not have CUDA; in a new environment: pip install --group gpu")
    create = partial(
        onnxruntime.InferenceSession,
        path,
        options,
        providers=[(CUDA, cuda), "CPUExecutionProvider"],
    )
    session = create()
    if CUDA not in session.get_providers():
        reason = REASON.search(_errors_of(create))
        raise RuntimeError(f"cannot use CUDA: {reason['why'] if reason else 'the log says why'}")
    session.disable_fallback()  # to the CPU, when a run fails
    return session


def _errors_of(function: Callable[[], object]) -> str:
    """Call a function and return what it writes to standard error."""
    with tempfile.TemporaryFile() as file:
        before = os.dup(STANDARD_ERROR)
        os.dup2(file.fileno(), STANDARD_ERROR)
        try:
            function()
        finally:
            os.dup2(before, STANDARD_ERROR)
            os.close(before)
        file.seek(0)
        return file.read().decode(errors="replace")


def _accelerators(config: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return the parameters of each accelerator for GPUs, by its name."""
    optimization = config.get("optimization", {})
    found = optimization.get("execution_accelerators", {}).get("gpu_execution_accelerator", [])
    return {each["name"]: each.get("parameters", {}) for each in found}


def _options(threads: dict[str, str]) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads.get("intra_op_thread_count", 0))
    options.inter_op_num_threads = int(threads.get("inter_op_thread_count", 0))
    return options
