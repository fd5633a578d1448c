"""Preprocessing step: encoded images in, normalised tensors out.

IMAGE, STRING [N, 1], becomes PIXELS, FP32 [N, 3, crop, crop]. The `recipe` parameter of
config.pbtxt holds the numbers.
"""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .imaging import ImageError, Normalizer, crop_to, decode
from .recipe import Recipe


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the recipe from the model's configuration."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.recipe = Recipe.from_json(parameters["recipe"]["string_value"])
        self.normalizer = Normalizer(self.recipe)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself, so that a bad image fails its own request only."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        images = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel()
        pixels = np.empty((len(images), 3, self.recipe.crop, self.recipe.crop), np.float32)
        for index, data in enumerate(images):
            try:
                image = crop_to(decode(data), self.recipe)
            except ImageError as error:
                return _refusal(f"IMAGE[{index}]: {error}")
            self.normalizer.write(image, pixels[index])
        return pb_utils.InferenceResponse([pb_utils.Tensor("PIXELS", pixels)])


def _refusal(message: str) -> Any:
    error = pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
    return pb_utils.InferenceResponse(error=error)
