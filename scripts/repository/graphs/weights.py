"""Takes the weights out of a graph, for tools that cannot take more than 2 GiB."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from onnx import ModelProto, TensorProto

from scripts.repository.graphs import walk

# Smaller tensors, such as shapes, stay, because tools read their values.
INLINE = 1024  # bytes

# The fields of larger numbers that OpenVINO 2026.4 reads as if they had the size of the type.
MISREAD: dict[int, tuple[str, npt.DTypeLike]] = {
    TensorProto.BFLOAT16: ("int32_data", np.uint16),
    TensorProto.UINT32: ("uint64_data", np.uint32),
}

Weights = dict[str, bytes]


def without_weights(model: ModelProto) -> tuple[ModelProto, Weights]:
    """Copy a graph without its large tensors, which are declared as external data.

    Returns:
        The graph, and the content of each tensor by the `location` that it declares.
    """
    slim = ModelProto()
    weights: Weights = {}
    _copy(model, slim, weights)
    return slim, weights


def _copy(source: Message, target: Message, weights: Weights) -> None:
    """Copy the fields of a message; large tensors only into `weights`, to spare memory."""
    for field, value in source.ListFields():
        if isinstance(target, TensorProto) and field.name == "raw_data" and len(value) > INLINE:
            location = str(len(weights))
            weights[location] = value
            make_external(target, location=location)
        elif field.message_type is None:
            _set(target, field.name, value)
        elif isinstance(value, Message):
            getattr(target, field.name).SetInParent()
            _copy(value, getattr(target, field.name), weights)
        else:
            for each in value:
                _copy(each, getattr(target, field.name).add(), weights)


def _set(target: Message, name: str, value: Any) -> None:  # noqa: ANN401 - of any field
    if isinstance(value, (str, bytes, int, float)):
        setattr(target, name, value)
    else:
        getattr(target, name).extend(value)


def restore_weights(model: ModelProto, weights: Weights) -> None:
    """Put the content of the tensors back, in place."""
    for tensor in external_tensors(model):
        make_internal(tensor, weights[external(tensor)["location"]])


def store_raw(model: ModelProto) -> None:
    """Store the content of tensors as bytes where OpenVINO would misread it, in place."""
    for tensor in walk.tensors(model):
        if tensor.data_type in MISREAD:
            field, number = MISREAD[tensor.data_type]
            if numbers := getattr(tensor, field):
                tensor.raw_data = np.array(numbers, number).tobytes()
                tensor.ClearField(field)


def external_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """List the tensors whose content is elsewhere."""
    for tensor in walk.tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            yield tensor


def external(tensor: TensorProto) -> dict[str, str]:
    """Read where the content of a tensor is: `location`, and perhaps `offset` and `length`."""
    return {entry.key: entry.value for entry in tensor.external_data}


def make_external(tensor: TensorProto, **entries: str | int) -> None:
    """Declare that the content of a tensor is elsewhere."""
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


def make_internal(tensor: TensorProto, content: bytes) -> None:
    """Store the content of a tensor in the graph."""
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    tensor.raw_data = content
