"""Preprocessing step: encoded images in, pixels out.

IMAGE, STRING [N, 1], becomes PIXELS, UINT8 [N, crop, crop, 3]: normalising them is the graph's
work, and a byte for each is a quarter of what would have to be copied on the way there. TICKET,
INT64 [N, 4], goes on to the postprocessing step. Of config.pbtxt's parameters `recipe` holds the
numbers, and `ahead` says how many decoded images of a process may wait for the graph or be in it.
"""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .imaging import ImageError, load
from .recipe import Recipe
from .tickets import Tickets


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the recipe and how far to go ahead."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.recipe = Recipe.from_json(parameters["recipe"]["string_value"])
        self.tickets = Tickets(int(parameters["ahead"]["string_value"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself, so that a bad image fails its own request only."""
        self.tickets.wait()
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        images = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel()
        decoded = []
        for index, data in enumerate(images):
            try:
                decoded.append(np.asarray(load(data, self.recipe)))
            except ImageError as error:
                return _refusal(f"IMAGE[{index}]: {error}")
        # One image, which is what most requests bring, is not copied.
        pixels = np.stack(decoded) if len(decoded) > 1 else decoded[0][np.newaxis]
        tickets = self.tickets.issue(len(pixels))
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("PIXELS", pixels), pb_utils.Tensor("TICKET", tickets)]
        )


def _refusal(message: str) -> Any:
    error = pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
    return pb_utils.InferenceResponse(error=error)
