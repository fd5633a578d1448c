"""Preprocessing step: encoded images in, pixels out.

IMAGE, STRING [N, 1], becomes PIXELS, UINT8 [N, crop, crop, 3]: normalising them is the graph's
work, and a byte for each is a quarter of what would have to be copied on the way there. An ensemble
sends ENSEMBLE_IMAGE in its place, for which there is a CREDIT, INT64 [N, 4], that goes on to the
postprocessing step. Of config.pbtxt's parameters `recipe` holds the numbers, and `credit_limit` is
how many decoded images of a process may wait for the graph or be in it.
"""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .credits import CreditLimit
from .imaging import ImageError, load
from .recipe import Recipe


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the recipe and how far to go ahead."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.recipe = Recipe.from_json(parameters["recipe"]["string_value"])
        self.credits = CreditLimit(int(parameters["credit_limit"]["string_value"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself, so that a bad image fails its own request only."""
        sources = [_source(request) for request in requests]
        if count := sum(is_ensemble for _, is_ensemble in sources):
            self.credits.wait(count)
        return [self._answer(*source) for source in sources]

    def _answer(self, files: Any, is_ensemble: bool) -> Any:
        decoded = []
        for index, data in enumerate(files.as_numpy().ravel()):
            try:
                decoded.append(np.asarray(load(data, self.recipe)))
            except ImageError as error:
                return _refusal(f"IMAGE[{index}]: {error}")
        # One image, which is what most requests bring, is not copied.
        pixels = np.stack(decoded) if len(decoded) > 1 else decoded[0][np.newaxis]
        outputs = [pb_utils.Tensor("PIXELS", pixels)]
        if is_ensemble:
            outputs.append(pb_utils.Tensor("CREDIT", self.credits.issue(len(pixels))))
        return pb_utils.InferenceResponse(outputs)


def _source(request: Any) -> tuple[Any, bool]:
    """Get a request's tensor of images, and whether an ensemble sends it."""
    if files := pb_utils.get_input_tensor_by_name(request, "IMAGE"):
        return files, False
    return pb_utils.get_input_tensor_by_name(request, "ENSEMBLE_IMAGE"), True


def _refusal(message: str) -> Any:
    error = pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
    return pb_utils.InferenceResponse(error=error)
