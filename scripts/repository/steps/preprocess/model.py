"""Preprocessing step: decodes image files into pixels.

Input: IMAGE, STRING [N, 1], the bytes of image files or their base64. Output: PIXELS, UINT8
[N, height, width, channels] of the crop. The graph normalises them, so that a quarter of the bytes
of an FP32 tensor is copied to it.

An ensemble sends ENSEMBLE_IMAGE instead of IMAGE and gets one CREDIT for each image, INT64 [N, 2],
which it passes to the postprocessing step.

With several crops, a request has one image, and PIXELS and CREDIT have a row for each crop.

Parameters in config.pbtxt: `recipe`, the preprocessing variant, and `limits`, what an image may
take, both as JSON; `crops`, how many an image has; `credit_limit`, how many crops of ensembles each
process may have waiting for the graph or in it before it decodes another image; `device`, `cpu` or
`gpu`, which decodes, and in whose memory PIXELS are. The configuration itself limits the images of
a request (`max_batch_size`) and how many requests wait for how long (`default_queue_policy`).
"""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .credits import CreditLimit
from .errors import Busy, ImageError
from .gpu_batches import GpuError, start
from .limits import Limits
from .preprocessing import OnCpu, Preprocess, Result
from .recipe import Recipe


class TritonPythonModel:
    """The interface that Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the parameters, and start the GPU if images are decoded on it."""
        parameters = {
            name: value["string_value"]
            for name, value in json.loads(args["model_config"])["parameters"].items()
        }
        recipe = Recipe.from_json(parameters["recipe"])
        crops = int(parameters["crops"])
        on_cpu = OnCpu(recipe, Limits.from_json(parameters["limits"]), crops)
        limit = int(parameters["credit_limit"])
        self.credits = CreditLimit(limit, pb_utils.Logger.log_warn, crops)
        self.preprocess: Preprocess = on_cpu
        if parameters["device"] == "gpu":
            self.preprocess = _on_gpu(on_cpu, int(args["model_instance_device_id"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request separately, so that an invalid image fails only its own request."""
        sources = [_source(request) for request in requests]
        if count := sum(is_ensemble for _, is_ensemble in sources):
            self.credits.wait(count)
        results = self.preprocess([files.as_numpy().ravel() for files, _ in sources])
        return [
            self._respond(result, is_ensemble)
            for result, (_, is_ensemble) in zip(results, sources, strict=True)
        ]

    def _respond(self, result: Result, is_ensemble: bool) -> Any:
        if isinstance(result, ImageError):
            return _refusal(result, pb_utils.TritonError.INVALID_ARG)
        if isinstance(result, Busy):
            return _refusal(result, pb_utils.TritonError.UNAVAILABLE)
        outputs = [_pixels(result)]
        if is_ensemble:
            outputs.append(pb_utils.Tensor("CREDIT", self.credits.issue(len(result))))
        return pb_utils.InferenceResponse(outputs)


def _on_gpu(on_cpu: OnCpu, number: int) -> Preprocess:
    try:
        return start(on_cpu, number, pb_utils.Logger.log_warn)
    except GpuError as error:
        raise pb_utils.TritonModelException(str(error)) from None


def _source(request: Any) -> tuple[Any, bool]:
    """Return a request's tensor of images, and whether it comes from an ensemble."""
    if files := pb_utils.get_input_tensor_by_name(request, "IMAGE"):
        return files, False
    return pb_utils.get_input_tensor_by_name(request, "ENSEMBLE_IMAGE"), True


def _pixels(result: Result) -> Any:
    """Make the output; an array that is not NumPy's is in the memory of a GPU and stays there."""
    # NumPy's capsules would end the process: they do not know the name that Triton gives to used
    # ones.
    from_array = pb_utils.Tensor if isinstance(result, np.ndarray) else pb_utils.Tensor.from_dlpack
    return from_array("PIXELS", result)


def _refusal(error: Exception, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))
