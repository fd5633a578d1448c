"""Preprocessing step: decodes image files into pixels.

Input: IMAGE, STRING [N, 1], the bytes of image files or their base64. Output: PIXELS, UINT8
[N, height, width, channels] of the crop. The graph normalises them, so that a quarter of the bytes
of an FP32 tensor is copied to it.

An ensemble sends ENSEMBLE_IMAGE instead of IMAGE and gets one CREDIT for each image, INT64 [N, 2],
which it passes to the postprocessing step.

With several crops, a request has one image, and PIXELS and CREDIT have a row for each crop.

Parameters in config.pbtxt: `recipe`, the preprocessing variant, and `limits`, what an image may
take, both as JSON; `crops`, how many an image has; `credit_limit`, how many crops of ensembles each
process may have waiting for the graph or in it before it decodes another image. The configuration
itself limits the images of a request (`max_batch_size`) and how many requests wait for how long
(`default_queue_policy`).
"""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .base64_text import file_content
from .credits import CreditLimit
from .imaging import Busy, ImageError, load_crops
from .limits import Limits
from .recipe import Recipe


class TritonPythonModel:
    """The interface that Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the recipe and the limits."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.recipe = Recipe.from_json(parameters["recipe"]["string_value"])
        self.limits = Limits.from_json(parameters["limits"]["string_value"])
        self.crops = int(parameters["crops"]["string_value"])
        limit = int(parameters["credit_limit"]["string_value"])
        self.credits = CreditLimit(limit, pb_utils.Logger.log_warn, self.crops)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Process each request separately, so that an invalid image fails only its own request."""
        sources = [_source(request) for request in requests]
        if count := sum(is_ensemble for _, is_ensemble in sources):
            self.credits.wait(count)
        return [self._respond(*source) for source in sources]

    def _respond(self, files: Any, is_ensemble: bool) -> Any:
        decoded: list[np.ndarray[Any, Any]] = []
        for index, data in enumerate(files.as_numpy().ravel()):
            try:
                pictures = load_crops(file_content(data), self.recipe, self.crops, self.limits)
            except ImageError as error:
                return _refusal(f"IMAGE[{index}]: {error}", pb_utils.TritonError.INVALID_ARG)
            except Busy as error:
                return _refusal(f"IMAGE[{index}]: {error}", pb_utils.TritonError.UNAVAILABLE)
            decoded.extend(map(np.asarray, pictures))
        # Most requests have one picture, which need not be copied.
        pixels = np.stack(decoded) if len(decoded) > 1 else decoded[0]
        pixels = pixels.reshape(len(decoded), *self.recipe.crop, self.recipe.channels)
        outputs = [pb_utils.Tensor("PIXELS", pixels)]
        if is_ensemble:
            outputs.append(pb_utils.Tensor("CREDIT", self.credits.issue(len(pixels))))
        return pb_utils.InferenceResponse(outputs)


def _source(request: Any) -> tuple[Any, bool]:
    """Return a request's tensor of images, and whether it comes from an ensemble."""
    if files := pb_utils.get_input_tensor_by_name(request, "IMAGE"):
        return files, False
    return pb_utils.get_input_tensor_by_name(request, "ENSEMBLE_IMAGE"), True


def _refusal(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
