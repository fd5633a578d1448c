"""Reads and writes ONNX files, with their external data if they have any."""

import hashlib
import io
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from scripts.repository import file_types
from scripts.repository.errors import BuildError
from scripts.repository.graphs.weights import (
    external,
    external_tensors,
    make_external,
    make_internal,
    without_weights,
)

# Protobuf's limit for one message, and thus for an ONNX file without external data.
MAX_BYTES = 2**31 - 1
# External data begins at multiples of a page, so that onnxruntime can map it into memory.
PAGE = 4096
# Data types of less than a byte, with their bits.
BITS = {
    getattr(TensorProto, name): bits
    for name, bits in (("INT4", 4), ("UINT4", 4), ("FLOAT4E2M1", 4), ("INT2", 2), ("UINT2", 2))
    if hasattr(TensorProto, name)
}


@dataclass(frozen=True)
class Graph:
    """A classifier's original graph, and the sha256 of its file, external data included."""

    model: ModelProto
    sha256: str


def read(file: Path) -> Graph:
    """Read an ONNX file, with its external data if it has any.

    External data may be behind symbolic links, as in the cache of Hugging Face.

    Raises:
        BuildError: the file cannot be read, is not an ONNX model, or its external data is missing
            or incomplete.
    """
    data = _bytes(file)
    if reason := file_types.reason_not_onnx(data):
        raise BuildError(f"{file} {reason}")
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise BuildError(
            f"{file} is not an ONNX file, or is incomplete; export or download it again"
        ) from error
    if not model.graph.node:
        raise BuildError(f"{file} is not an ONNX file: it contains no graph")
    digest = hashlib.sha256(data)
    contents: dict[str, bytes] = {}
    for tensor in external_tensors(model):
        location = external(tensor).get("location", "")
        if location not in contents:
            contents[location] = _bytes(_external_file(file, location))
            digest.update(contents[location])
        make_internal(tensor, _content(file, tensor, contents[location]))
    return Graph(model, digest.hexdigest())


def write(model: ModelProto, name: str = "model.onnx") -> dict[str, bytes]:
    """Serialise a graph, always in the same way.

    Returns:
        The content of each file by its name: of `name` and, if the graph exceeds 2 GiB, of
        `name`.data, which holds the weights.

    Raises:
        BuildError: the graph exceeds 2 GiB without its weights.
    """
    # Protobuf serialises a graph to find out its size, too, so that `is_large` would do it twice.
    data: bytes = model.SerializeToString(deterministic=True)
    if len(data) <= MAX_BYTES:
        return {name: data}
    del data  # before the weights are in memory once more
    slim, weights = without_weights(model)
    file = f"{name}.data"
    content = io.BytesIO()
    for tensor in external_tensors(slim):
        part = weights.pop(external(tensor)["location"])  # to keep each in memory once
        content.write(bytes(-content.tell() % PAGE))
        make_external(tensor, location=file, offset=content.tell(), length=len(part))
        content.write(part)
    if slim.ByteSize() > MAX_BYTES:
        raise BuildError("the graph exceeds 2 GiB without its weights")
    return {name: slim.SerializeToString(deterministic=True), file: content.getvalue()}


def is_large(model: ModelProto) -> bool:
    """Tell whether a graph exceeds 2 GiB, the limit of one file."""
    return bool(model.ByteSize() > MAX_BYTES)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except IsADirectoryError as error:
        raise BuildError(f"{file} is a folder, not an ONNX file") from error
    except OSError as error:
        raise BuildError(f"cannot read {file}: {error.strerror or error}") from error


def _external_file(file: Path, location: str) -> Path:
    path = PurePosixPath(location.replace("\\", "/"))
    if not location or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise BuildError(
            f"{file} names {location!r} as the file of its weights, which is not beside it; save "
            "it again with a relative location (onnx.save, save_as_external_data=True)"
        )
    # Beside a link to the ONNX file, or beside the file itself.
    folders = (file.parent, file.resolve().parent)
    found = next((folder / path for folder in folders if (folder / path).is_file()), None)
    if found is None:
        raise BuildError(
            f"{file} keeps its weights in {path}, which is missing; put it into {file.parent}"
            f"{_renamed(file, path)}"
        )
    return found


def _renamed(file: Path, path: PurePosixPath) -> str:
    """Name a file beside it that can be the missing one under another name."""
    similar = sorted(
        each.name
        for each in file.parent.iterdir()
        if each.suffix == path.suffix and each != file and each.is_file()
    )
    return f" (or rename {similar[0]} to {path.name})" if len(similar) == 1 else ""


def _content(file: Path, tensor: TensorProto, data: bytes) -> bytes:
    entries = external(tensor)
    try:
        start = int(entries.get("offset", 0))
        length = int(entries.get("length", 0)) or _size(tensor)
    except ValueError as error:
        raise BuildError(
            f"{file} has invalid external data for {tensor.name}; export it again"
        ) from error
    end = start + length
    if start < 0 or length != _size(tensor):
        raise BuildError(f"{file} has invalid external data for {tensor.name}; export it again")
    if end > len(data):
        raise BuildError(
            f"{file.parent / entries['location']} is incomplete: it has {len(data):,} bytes, and "
            f"{tensor.name} ends at {end:,}; copy or download it again"
        )
    return data[start:end]


def _size(tensor: TensorProto) -> int:
    """Compute the size of a tensor's content in bytes."""
    bits = BITS.get(tensor.data_type)
    if bits is None:
        bits = 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return math.ceil(math.prod(tensor.dims) * bits / 8)
