"""Reads the test data in the zoo's archives: tensors, and the answers that the zoo published.

An archive, `NAME.tar.gz`, has a folder with the model and `test_data_set_N/input_K.pb` and
`output_K.pb`, each an ONNX TensorProto: https://github.com/onnx/models#usage-. Nothing is
extracted. An archive can come from anybody, so what is read of it into memory is limited.
"""

import gzip
import io
import re
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from scripts.evaluation import tars
from scripts.evaluation.errors import EvaluationError

Array = npt.NDArray[Any]

MIB = 1 << 20
MAX_TENSOR = 64 * MIB  # bytes of one file, or of one header of the archive
MAX_TENSORS = 256 * MIB  # bytes of all of them
MAX_ARCHIVE = 2048 * MIB + MAX_TENSORS  # unpacked; an ONNX file has at most 2 GiB
CHUNK = MIB

MEMBER = re.compile(r"(?:.*/)?test_data_set_(\d+)/(input|output)_(\d+)\.pb")
GIT_LFS = b"version https://git-lfs"
GZIP = b"\x1f\x8b"
# What tarfile, gzip and zlib raise for archives that are not intact.
DAMAGED = (*tars.DAMAGED, gzip.BadGzipFile, zlib.error, EOFError)


@dataclass(frozen=True)
class Tensor:
    """A tensor and the name that its file gives it, which can be empty."""

    name: str
    array: Array


@dataclass(frozen=True)
class DataSet:
    """The inputs and outputs of one run of the model, in the order of the model's own."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def read(archive: Path) -> list[DataSet]:
    """Read all data sets of an archive, in the order of their numbers.

    Raises:
        EvaluationError: the file is not such an archive, is damaged or incomplete, or would need
            more memory than it may.
        OSError: it cannot be read.
    """
    if not archive.is_file():
        raise EvaluationError(f"{archive} is not a file; give the .tar.gz with the test data")
    check_type(archive)
    with archive.open("rb") as file:
        try:
            files = _files(file)
            sets = [_data_set(name, files[name]) for name in sorted(files, key=_number)]
        except EvaluationError as error:
            raise EvaluationError(f"{archive}: {error}") from error
        except DAMAGED as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise EvaluationError(
                f"{archive} is damaged or incomplete ({reason}); copy or download it again"
            ) from error
    if not sets:
        raise EvaluationError(f"{archive} has no test_data_set_0/input_0.pb, so no test data")
    return sets


def check_type(archive: Path) -> None:
    """Check that a file is compressed with gzip.

    Raises:
        EvaluationError: it is not.
        OSError: it cannot be read.
    """
    with archive.open("rb") as file:
        start = file.read(len(GIT_LFS))
    if start == GIT_LFS:
        raise EvaluationError(
            f"{archive} is a Git LFS pointer, not the archive; run git lfs pull, or copy the file"
        )
    if not start.startswith(GZIP):
        raise EvaluationError(f"{archive} is not compressed with gzip; give a .tar.gz")


def _files(file: BinaryIO) -> dict[str, dict[tuple[str, int], bytes]]:
    """Read the tensors' files, by data set, and by `input` or `output` and number."""
    found: dict[str, dict[tuple[str, int], bytes]] = defaultdict(dict)
    size = 0
    with gzip.GzipFile(fileobj=file) as unpacked:
        content = _Limited(unpacked)
        with tarfile.open(fileobj=content, mode="r:") as tar:
            for member in _members(tar):
                match = MEMBER.fullmatch(member.name)
                if not match:
                    continue
                data_set, key = f"test_data_set_{int(match[1])}", (match[2], int(match[3]))
                if key in found[data_set]:
                    raise EvaluationError(f"it has more than one {data_set}/{key[0]}_{key[1]}.pb")
                size += member.size
                if size > MAX_TENSORS:
                    raise EvaluationError(f"it has more than {MAX_TENSORS // MIB} MiB of tensors")
                found[data_set][key] = _content(tar, member)
        while content.read(CHUNK):  # to the end, where gzip has its checksum
            pass
    return found


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Walk the archive's members, and check each before its content is read or skipped."""
    for member in tars.members(tar):
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise EvaluationError(f"{member.name!r} is outside of the archive's own folder")
        if member.offset_data + member.size > MAX_ARCHIVE:
            raise EvaluationError(f"it unpacks to more than {MAX_ARCHIVE // MIB} MiB")
        yield member


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if not member.isreg() or member.issparse():
        raise EvaluationError(f"{member.name} is a link or no regular file")
    if member.size > MAX_TENSOR:
        raise EvaluationError(f"{member.name} has more than {MAX_TENSOR // MIB} MiB")
    content = tar.extractfile(member)
    data = content.read() if content else b""
    if len(data) != member.size:
        raise EOFError(f"{member.name} ends early")
    return data


class _Limited(io.RawIOBase):
    """The unpacked archive for tarfile, which moves forward only.

    tarfile itself reads a header of any size into memory, and follows a negative size backwards.
    """

    def __init__(self, content: gzip.GzipFile) -> None:
        self._content = content

    def tell(self) -> int:
        return self._content.tell()

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_TENSOR:
            raise EvaluationError(f"it has a header of more than {MAX_TENSOR // MIB} MiB")
        data = self._content.read(size)
        if self.tell() > MAX_ARCHIVE:
            raise EvaluationError(f"it unpacks to more than {MAX_ARCHIVE // MIB} MiB")
        return data

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or position < self.tell():
            raise tarfile.ReadError("a size is not valid")
        if position > MAX_ARCHIVE:
            raise EvaluationError(f"it unpacks to more than {MAX_ARCHIVE // MIB} MiB")
        return self._content.seek(position)


def _number(data_set: str) -> int:
    return int(data_set.rpartition("_")[2])


def _data_set(name: str, files: Mapping[tuple[str, int], bytes]) -> DataSet:
    return DataSet(name, _tensors(name, "input", files), _tensors(name, "output", files))


def _tensors(
    data_set: str, kind: str, files: Mapping[tuple[str, int], bytes]
) -> tuple[Tensor, ...]:
    numbers = sorted(number for each, number in files if each == kind)
    missing = next(number for number in range(len(numbers) + 1) if number not in numbers)
    if not numbers or missing < len(numbers):
        raise EvaluationError(f"{data_set} has no {kind}_{missing}.pb")
    return tuple(
        _tensor(f"{data_set}/{kind}_{number}.pb", files[kind, number]) for number in numbers
    )


def _tensor(file: str, data: bytes) -> Tensor:
    """Parse an ONNX TensorProto with numbers."""
    try:
        proto = onnx.load_tensor_from_string(data)
        if proto.data_location == TensorProto.EXTERNAL:  # onnx would read a file by its path
            raise EvaluationError(f"{file} keeps its content in another file")
        array = np.ascontiguousarray(numpy_helper.to_array(proto))
    except (DecodeError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise EvaluationError(f"{file} is not an ONNX tensor, or is damaged") from error
    if array.dtype.kind not in "fiu" or not array.size:
        raise EvaluationError(f"{file} has no numbers: {array.dtype}, shape {list(array.shape)}")
    return Tensor(proto.name, array)
