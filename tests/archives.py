"""Archives of test data in the zoo's form."""

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from onnx import numpy_helper

Array = npt.NDArray[Any]


def proto(array: Array, name: str = "") -> bytes:
    """Serialise a TensorProto."""
    data: bytes = numpy_helper.from_array(array, name).SerializeToString()
    return data


def data_sets(pairs: Iterable[tuple[Array, Array]]) -> dict[str, bytes]:
    """The files of data sets with one input and one output each."""
    files = {}
    for number, (given, answer) in enumerate(pairs):
        files[f"test_data_set_{number}/input_0.pb"] = proto(given)
        files[f"test_data_set_{number}/output_0.pb"] = proto(answer)
    return files


def write(file: Path, files: Mapping[str, bytes], *, folder: str = "model/") -> Path:
    """Write an archive with a model, which nobody reads, and files, all in a folder."""
    with tarfile.open(file, "w:gz", compresslevel=1) as tar:
        for name, content in {"model.onnx": bytes(4096), **files}.items():
            member = tarfile.TarInfo(folder + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file
