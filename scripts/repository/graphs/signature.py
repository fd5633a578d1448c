"""The tensors that a classifier's graph takes and gives."""

from dataclasses import dataclass

import onnx
from onnx import ModelProto, TensorProto

from scripts.repository.errors import BuildError

LAYOUTS = ("NCHW", "NHWC")


@dataclass(frozen=True)
class Signature:
    """The image input and the scores output of a classifier.

    Attributes:
        input: name of the image tensor.
        output: name of the scores tensor.
        batch: number of images that the graph takes at once; None if it is symbolic.
        height: of the image, in pixels; None if it is symbolic.
        width: of the image, in pixels; None if it is symbolic.
        channels: 3, or 1 for grey images.
        layout: order of the input's dimensions, one of `LAYOUTS`.
        input_type: data type of the input, as Triton names it: `FP32`, `FP16`, `UINT8`, `FP64`.
        output_type: data type of the output: `FP32`, `FP16`, `FP64`.
        output_dims: dimensions of the output after the batch, -1 where unknown: (1000,) for
            [N, 1000], (5, 1, 1) for [N, 5, 1, 1], () for [N]. (-1,) if the file has no shape.
    """

    input: str
    output: str
    batch: int | None
    height: int | None
    width: int | None
    channels: int = 3
    layout: str = "NCHW"
    input_type: str = "FP32"
    output_type: str = "FP32"
    output_dims: tuple[int, ...] = (-1,)


def read_signature(
    model: ModelProto,
    *,
    output: str | None = None,  # noqa: ARG001
    layout: str | None = None,  # noqa: ARG001
) -> Signature:
    """Find a classifier's image input and scores output.

    `output` names the output of a graph with several, and `layout` is one of `LAYOUTS`; None
    recognises them.

    Raises:
        BuildError: the graph does not have exactly one image input, or one output that can be
            scores.
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


def without_zip_maps(model: ModelProto) -> ModelProto:
    """Copy a graph without the ZipMap nodes of scikit-learn exports; their inputs become outputs.

    A ZipMap turns a tensor of scores into a list of dictionaries, which Triton cannot serve. A
    graph without one is returned as it is.
    """
    return model


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
