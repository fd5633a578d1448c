"""Triton's `onnxruntime` backend, written in Python, for the Triton that pip installs.

That Triton does not include the C++ backend. A model whose config.pbtxt has
`backend: "onnxruntime"` loads here without changes: the model file and the tensors are the same,
and of the C++ backend's parameters `intra_op_thread_count` and `inter_op_thread_count` apply.
It has no accelerators: a graph for TensorRT runs on CUDA or the CPU, and the log says so.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from scripts.embedded.backends.python.graph_model import GraphModel, parameters
else:
    from graph_model import GraphModel, parameters  # as the server has it


class TritonPythonModel(GraphModel):
    """Runs the model file in a session of onnxruntime."""

    engine = "onnxruntime"

    def load(self, path: Path, config: dict[str, Any], args: dict[str, str]) -> None:
        """Create a session for the model file."""
        self.session = onnxruntime.InferenceSession(
            path, _options(parameters(config)), providers=_providers(args)
        )
        is_first = args["model_instance_name"].endswith("_0")
        if is_first and _accelerators(config):
            provider = self.session.get_providers()[0]
            pb_utils.Logger.log_warn(
                f"{args['model_name']} runs on {provider}: this server does not have TensorRT"
            )

    def run(self, arrays: list[Any]) -> list[Any]:
        """Compute the outputs."""
        results: list[Any] = self.session.run(
            self.outputs, dict(zip(self.inputs, arrays, strict=True))
        )
        return results


def _accelerators(config: dict[str, Any]) -> list[Any]:
    optimization = config.get("optimization", {})
    found: list[Any] = optimization.get("execution_accelerators", {}).get(
        "gpu_execution_accelerator", []
    )
    return found


def _options(threads: dict[str, str]) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads.get("intra_op_thread_count", 0))
    options.inter_op_num_threads = int(threads.get("inter_op_thread_count", 0))
    return options


def _providers(args: dict[str, str]) -> list[Any]:
    available = onnxruntime.get_available_providers()
    if args["model_instance_kind"] == "GPU" and "CUDAExecutionProvider" in available:
        device = {"device_id": args["model_instance_device_id"]}
        return [("CUDAExecutionProvider", device), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]
