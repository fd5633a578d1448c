"""What Triton's backends for graphs share where they are written in Python.

The server's backend directory has it beside `triton_python_backend_utils`, from where all backends
can import it. The `model.py` of a backend loads the model file and runs it on arrays.
"""

import ctypes
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

# Lines in which OpenVINO says where in its source an exception comes from.
LOCATION = re.compile(r"Exception from |Check '.*' failed at |FrontEnd API failed")


class InvalidRequest(ValueError):
    """A client has to change its request."""


class GraphModel:
    """The interface that Triton's Python backend calls.

    `engine` is the name of what runs the graph, for messages.
    """

    engine: str

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model file.

        Raises:
            pb_utils.TritonModelException: it does not load.
        """
        config = json.loads(args["model_config"])
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        file = config["default_model_filename"] or "model.onnx"
        path = Path(args["model_repository"], args["model_version"], file)
        try:
            self.load(path, config, args)
        except Exception as error:
            raise pb_utils.TritonModelException(self._line(error)) from error
        # The server's settings keep freed memory in the process: here what only loading needed.
        ctypes.CDLL(None).malloc_trim(0)

    def load(self, path: Path, config: dict[str, Any], args: dict[str, str]) -> None:
        """Load the model file. `args` are those of `initialize`, with `config` in them as JSON."""
        raise NotImplementedError

    def read(self, tensor: Any) -> Any:  # noqa: ANN401 - Triton's own module has no types
        """Return an input tensor as an array, whose length is the number of its rows."""
        return tensor.as_numpy()

    def run(self, parts: list[list[Any]]) -> list[Any]:
        """Compute the outputs of one batch; later runs must not change them.

        `parts` has for each input the arrays of which the batch consists, one below the other.
        """
        raise NotImplementedError

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run all requests as one batch and split the result.

        If that fails, each request runs by itself, and only those that still fail get an error.
        """
        try:
            return self._run(requests)
        except Exception as error:  # noqa: BLE001 - the engines' exceptions share no base class
            if len(requests) > 1:
                return [response for request in requests for response in self.execute([request])]
            return [pb_utils.InferenceResponse(error=self._failure(error))]

    def _run(self, requests: list[Any]) -> list[Any]:
        batch = [[self._array(request, name) for name in self.inputs] for request in requests]
        results = self.run([list(parts) for parts in zip(*batch, strict=True)])
        if len(batch) == 1:
            return [self._response(results)]
        ends = list(itertools.accumulate(len(arrays[0]) for arrays in batch))
        return [
            self._response([result[start:end] for result in results])
            for start, end in zip([0, *ends], ends, strict=False)
        ]

    def _array(self, request: Any, name: str) -> Any:  # noqa: ANN401
        return self.read(pb_utils.get_input_tensor_by_name(request, name))

    def _response(self, arrays: list[Any]) -> Any:  # noqa: ANN401
        pairs = zip(self.outputs, arrays, strict=True)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in pairs])

    def _failure(self, error: Exception) -> Any:  # noqa: ANN401
        codes = pb_utils.TritonError
        is_clients = isinstance(error, InvalidRequest)
        return codes(self._line(error), codes.INVALID_ARG if is_clients else codes.INTERNAL)

    def _line(self, error: Exception) -> str:
        """Describe an exception in one line, without the double quotes, which end it in the log."""
        lines = [line.strip() for line in str(error).splitlines() if not LOCATION.match(line)]
        text = " ".join(filter(None, lines)) or type(error).__name__
        return f"{self.engine}: {text}".replace('"', "'")


def join(parts: list[Any]) -> Any:  # noqa: ANN401 - of NumPy
    """Put arrays one below the other."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def parameters(config: dict[str, Any]) -> dict[str, str]:
    """Return the parameters of a model's configuration."""
    return {name: value["string_value"] for name, value in config["parameters"].items()}
