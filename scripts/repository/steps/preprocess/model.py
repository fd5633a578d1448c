"""Preprocessing step: encoded images in, pixels out.

IMAGE, STRING [N, 1], becomes PIXELS, UINT8 [N, crop, crop, 3]: normalising them is the graph's
work, and a byte for each is a quarter of what would have to be copied on the way there. Of
config.pbtxt's parameters `recipe` holds the numbers, and `nice` how far this process stands back
for the others.
"""

import json
import os
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .imaging import ImageError, load
from .recipe import Recipe


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the recipe from the model's configuration."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.recipe = Recipe.from_json(parameters["recipe"]["string_value"])
        os.nice(int(parameters["nice"]["string_value"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself, so that a bad image fails its own request only."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        images = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel()
        pixels = np.empty((len(images), self.recipe.crop, self.recipe.crop, 3), np.uint8)
        for index, data in enumerate(images):
            try:
                pixels[index] = load(data, self.recipe)
            except ImageError as error:
                return _refusal(f"IMAGE[{index}]: {error}")
        return pb_utils.InferenceResponse([pb_utils.Tensor("PIXELS", pixels)])


def _refusal(message: str) -> Any:
    error = pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
    return pb_utils.InferenceResponse(error=error)
