"""The tensors that a classifier's graph takes and gives."""

from dataclasses import dataclass

import onnx
from onnx import ModelProto, TensorProto

from scripts.repository.errors import BuildError


@dataclass(frozen=True)
class Signature:
    """Input FP32 [batch, 3, height, width] and output FP32 [batch, classes] of a classifier.

    `batch`, `height` and `width` are None if they are symbolic.
    """

    input: str
    output: str
    batch: int | None
    height: int | None
    width: int | None


def read_signature(model: ModelProto) -> Signature:
    """Find a classifier's input and output.

    Raises:
        BuildError: there is not exactly one FP32 input [N, 3, H, W] and one FP32 output
            [N, classes].
    """
    image = _only(inputs(model), "input", rank=4)
    scores = _only(list(model.graph.output), "output", rank=2)
    batch, channels, height, width = _dims(image)
    if channels != 3:  # noqa: PLR2004
        raise BuildError(
            f"input {image.name} is {_shape(image)}; it must be [N, 3, height, width], "
            "channels first"
        )
    return Signature(image.name, scores.name, batch, height, width)


def inputs(model: ModelProto) -> list[onnx.ValueInfoProto]:
    """List the inputs without the weights, which are also inputs before IR 4."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initializers]


def _only(values: list[onnx.ValueInfoProto], kind: str, *, rank: int) -> onnx.ValueInfoProto:
    if len(values) != 1:
        names = ", ".join(value.name for value in values)
        raise BuildError(f"the graph has {len(values)} {kind}s ({names}); it must have one")
    value = values[0]
    if value.type.tensor_type.elem_type != TensorProto.FLOAT or len(_dims(value)) != rank:
        shape = "[N, 3, height, width]" if kind == "input" else "[N, classes]"
        raise BuildError(f"{kind} {value.name} is {_shape(value)}; it must be FLOAT {shape}")
    return value


def _dims(value: onnx.ValueInfoProto) -> list[int | None]:
    return [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]


def _shape(value: onnx.ValueInfoProto) -> str:
    dims = (str(dim.dim_value or dim.dim_param) for dim in value.type.tensor_type.shape.dim)
    return f"{TensorProto.DataType.Name(value.type.tensor_type.elem_type)} [{', '.join(dims)}]"
