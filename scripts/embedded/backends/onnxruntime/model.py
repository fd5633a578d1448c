"""Triton's `onnxruntime` backend, written in Python, for the Triton that pip installs.

That Triton does not include the C++ backend. A model whose config.pbtxt has
`backend: "onnxruntime"` loads here without changes: the model file and the tensors are the same,
and of the C++ backend's parameters `intra_op_thread_count` and `inter_op_thread_count` apply.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The interface that Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Create a session for the model file.

        Raises:
            onnxruntime.capi.onnxruntime_pybind11_state.Fail: the model does not load.
        """
        config = json.loads(args["model_config"])
        file = config["default_model_filename"] or "model.onnx"
        path = Path(args["model_repository"], args["model_version"], file)
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.session = onnxruntime.InferenceSession(
            path, _options(config["parameters"]), providers=_providers(args)
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run all requests as one batch and split the result."""
        batch = [[_array(request, name) for name in self.inputs] for request in requests]
        try:
            results = self.session.run(self.outputs, self._feeds(batch))
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions share no base class
            failure = pb_utils.TritonError(f"onnxruntime: {error}")
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        if len(requests) == 1:
            return [self._response(results)]
        ends = list(itertools.accumulate(len(arrays[0]) for arrays in batch))
        return [
            self._response([result[start:end] for result in results])
            for start, end in zip([0, *ends], ends, strict=False)
        ]

    def _feeds(self, batch: list[list[Any]]) -> dict[str, Any]:
        arrays = batch[0]
        if len(batch) > 1:
            arrays = [np.concatenate(parts) for parts in zip(*batch, strict=True)]
        return dict(zip(self.inputs, arrays, strict=True))

    def _response(self, arrays: list[Any]) -> Any:
        pairs = zip(self.outputs, arrays, strict=True)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in pairs])


def _array(request: Any, name: str) -> Any:
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()


def _options(parameters: dict[str, dict[str, str]]) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    threads = {name: value["string_value"] for name, value in parameters.items()}
    options.intra_op_num_threads = int(threads.get("intra_op_thread_count", 0))
    options.inter_op_num_threads = int(threads.get("inter_op_thread_count", 0))
    return options


def _providers(args: dict[str, str]) -> list[Any]:
    available = onnxruntime.get_available_providers()
    if args["model_instance_kind"] == "GPU" and "CUDAExecutionProvider" in available:
        device = {"device_id": args["model_instance_device_id"]}
        return [("CUDAExecutionProvider", device), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]
