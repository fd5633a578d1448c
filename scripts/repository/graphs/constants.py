"""The constants of a graph."""

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, ModelProto, TensorProto, numpy_helper

Array = npt.NDArray[Any]


class Constants:
    """The values of a graph's initializers and Constant nodes, by name."""

    def __init__(self, model: ModelProto) -> None:
        self._tensors: dict[str, TensorProto] = {
            tensor.name: tensor for tensor in model.graph.initializer
        }
        self._arrays: dict[str, Array] = {}
        for node in model.graph.node:
            if node.op_type == "Constant":
                self._add(node.output[0], node.attribute[0])

    def get(self, name: str) -> Array | None:
        """Read a constant; None if the tensor is not a constant."""
        if name in self._tensors:
            return numpy_helper.to_array(self._tensors[name])
        return self._arrays.get(name)

    def _add(self, name: str, attribute: AttributeProto) -> None:
        if attribute.name == "value":
            self._tensors[name] = attribute.t
        elif attribute.name in {"value_float", "value_floats"}:
            self._arrays[name] = np.array(attribute.floats or attribute.f, np.float32)
        elif attribute.name in {"value_int", "value_ints"}:
            self._arrays[name] = np.array(attribute.ints or attribute.i, np.int64)
