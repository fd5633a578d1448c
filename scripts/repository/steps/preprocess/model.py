"""Preprocessing step: encoded images in, pixels out.

IMAGE, STRING [N, 1], becomes PIXELS, UINT8 [N, crop, crop, 3]: normalising them is the graph's
work, and a byte for each is a quarter of what would have to be copied on the way there. The
`recipe` parameter of config.pbtxt holds the numbers.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .imaging import ImageError, load
from .recipe import Recipe

# The lowest priority that Linux has. On Linux it is a thread's own.
LOWEST = 19


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the recipe and the batch size from the model's configuration."""
        config = json.loads(args["model_config"])
        self.recipe = Recipe.from_json(config["parameters"]["recipe"]["string_value"])
        self.full = config["dynamic_batching"]["preferred_batch_size"][0]
        self.standing_back = ThreadPoolExecutor(1, initializer=os.nice, initargs=(LOWEST,))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests; with more of them waiting, let all other work go first.

        Where the graph runs on the same cores, images would otherwise be decoded faster than they
        are classified, only to be refused in its queue.
        """
        if len(requests) < self.full:
            return self._answer_each(requests)
        return self.standing_back.submit(self._answer_each, requests).result()

    def finalize(self) -> None:
        """End the thread."""
        self.standing_back.shutdown()

    def _answer_each(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself, so that a bad image fails its own request only."""
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
        return pb_utils.InferenceResponse([pb_utils.Tensor("PIXELS", pixels)])


def _refusal(message: str) -> Any:
    error = pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
    return pb_utils.InferenceResponse(error=error)
