"""The inputs and outputs that a graph declares."""

from dataclasses import dataclass

from onnx import ModelProto, TensorProto, ValueInfoProto

# ONNX's data types as Triton names them.
TYPES: dict[int, str] = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.DOUBLE: "FP64",
    TensorProto.BOOL: "BOOL",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.STRING: "STRING",
}


@dataclass(frozen=True)
class Value:
    """An input or output of a graph.

    Attributes:
        name: of the tensor.
        data_type: as Triton names it; None for a type that Triton does not have, and for what is
            not a tensor.
        dims: None if the file has no shape; each of them None if it is variable.
        text: name, type and shape as the file writes them, for messages.
    """

    name: str
    data_type: str | None
    dims: tuple[int | None, ...] | None
    text: str


def inputs(model: ModelProto) -> list[ValueInfoProto]:
    """List the inputs without those that have a default, as weights have before IR 4."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initializers]


def read(value: ValueInfoProto) -> Value:
    """Read what the file says about an input or output."""
    if not value.type.HasField("tensor_type"):
        kind = value.type.WhichOneof("value") or "untyped"
        return Value(value.name, None, None, f"{value.name} ({kind.removesuffix('_type')})")
    tensor = value.type.tensor_type
    kind = TensorProto.DataType.Name(tensor.elem_type)
    data_type = TYPES.get(tensor.elem_type)
    if not tensor.HasField("shape"):
        return Value(value.name, data_type, None, f"{value.name} ({kind}, no shape)")
    # Exporters write a variable dimension as a name, as nothing, as 0 and as -1.
    dims = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
    written = ", ".join(
        str(size or dim.dim_param or "?") for size, dim in zip(dims, tensor.shape.dim, strict=True)
    )
    return Value(value.name, data_type, dims, f"{value.name} ({kind} [{written}])")
