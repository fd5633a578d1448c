"""Postprocessing step: turns a classifier's scores into its top-k classes.

Inputs: SCORES, FP32 [N, classes]; CREDIT, INT64 [N, 2], optional, returned to the preprocessing
step. Outputs: CLASS_ID INT32, PROBABILITY FP32 and LABEL STRING, each [N, k], best first, where k
is the request parameter `top_k`.

Parameters in config.pbtxt: `labels`, the file with one label a line; `scores`, `logits` or
`probabilities`; `max_top_k`, the largest `top_k`; `crops`, how many an image has. A softmax is
applied to logits. With several crops, SCORES and CREDIT have a row for each crop of one image,
which gets the mean of the probabilities.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .credits import CreditReturns
from .ranking import best, mean, softmax, top_k_of


class TritonPythonModel:
    """The interface that Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the labels."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.are_logits = parameters["scores"]["string_value"] == "logits"
        self.max_top_k = int(parameters["max_top_k"]["string_value"])
        self.crops = int(parameters["crops"]["string_value"])
        self.credits = CreditReturns()
        file = Path(args["model_repository"], parameters["labels"]["string_value"])
        self.labels = np.array(file.read_bytes().splitlines(), dtype=np.object_)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Process each request separately, since each has its own `top_k`."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        if arrived := pb_utils.get_input_tensor_by_name(request, "CREDIT"):
            self.credits.give_back(arrived.as_numpy())
        # Triton only counts the inputs, so that CREDIT can stand in for it.
        scores = pb_utils.get_input_tensor_by_name(request, "SCORES")
        if scores is None:
            return _refusal("the request has no SCORES")
        try:
            k = top_k_of(request.parameters(), self.max_top_k)
        except ValueError as error:
            return _refusal(str(error))
        rows, are_logits = scores.as_numpy(), self.are_logits
        if self.crops > 1:
            rows, are_logits = mean(rows, are_logits=are_logits)[None], False
        classes = np.empty((len(rows), k), np.int32)
        probabilities = np.empty((len(rows), k), np.float32)
        for index, row in enumerate(rows):
            classes[index] = top = best(row, k)
            probabilities[index] = (softmax(row) if are_logits else row)[top]
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("CLASS_ID", classes),
                pb_utils.Tensor("PROBABILITY", probabilities),
                pb_utils.Tensor("LABEL", self.labels[classes]),
            ]
        )


def _refusal(message: str) -> Any:
    error = pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
    return pb_utils.InferenceResponse(error=error)
