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
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import onnxruntime
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from scripts.embedded.backends.onnxruntime.bound_sessions import BoundSessions, Device
    from scripts.embedded.backends.python.graph_model import GraphModel, join, parameters
else:
    from bound_sessions import BoundSessions, Device  # as the server has them
    from graph_model import GraphModel, join, parameters

CUDA = "CUDAExecutionProvider"
# An exhaustive search takes longer than HEURISTIC, at the first run of each session, and by the
# reports of others finds nothing faster (https://github.com/PaddlePaddle/PaddleX/pull/5057).
# Memory that doubles with each extension would be wasted once for each session.
CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}
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


def batch_sizes(config: dict[str, Any]) -> list[int]:
    """Return the batch sizes for which there are sessions; none if batches can have any size."""
    largest = int(config["max_batch_size"])
    is_text = any(tensor["data_type"] == "TYPE_STRING" for tensor in config["input"])
    if not largest or is_text:  # there are no zeros among texts
        return []
    warmed = (int(each["batch_size"]) for each in config.get("model_warmup", ()))
    return sorted({size for size in warmed if 0 < size < largest} | {largest})


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
    with _errors() as file:
        session = onnxruntime.InferenceSession(
            path, options, providers=[(CUDA, cuda), "CPUExecutionProvider"]
        )
    if CUDA not in session.get_providers():
        reason = REASON.search(file.read())
        raise RuntimeError(f"cannot use CUDA: {reason['why'] if reason else 'the log says why'}")
    session.disable_fallback()  # to the CPU, when a run fails
    return session


@contextmanager
def _errors() -> Iterator[TextIO]:
    """Give what is written to standard error, which still gets it, after the `with` block."""
    with tempfile.TemporaryFile("w+") as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield file
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            sys.stderr.write(file.read())
            file.seek(0)


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
