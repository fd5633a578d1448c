"""The image files in a tar archive, read in place."""

from __future__ import annotations

import io
import logging
import shlex
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from client import SUFFIXES
from scripts.evaluation.datasets.folder import NOT_IMAGES, is_hidden
from scripts.evaluation.datasets.words import count, examples, first_line, printable
from scripts.evaluation.errors import EvaluationError
from scripts.evaluation.tars import DAMAGED, members
from scripts.repository.steps.preprocess.limits import Limits

LOGGER = logging.getLogger(__name__)
# First bytes of compressed files, and what decompresses them.
COMPRESSED = {
    b"\x1f\x8b": "gzip -d",
    b"BZh": "bzip2 -d",
    b"\xfd7zXZ": "xz -d",
    b"\x28\xb5\x2f\xfd": "zstd -d",
    b"PK\x03\x04": "unzip",
}
AFTER_END = 1 << 20  # bytes that are searched for a second archive
MAX_HEADER = 1 << 20  # bytes; a long name or a list of holes
# One byte more than the server accepts, which then says so.
MAX_IMAGE = Limits().max_bytes + 1


@dataclass(frozen=True)
class TarImages:
    """The images in a tar: their members' names, sorted, and where each begins, in bytes."""

    file: Path
    names: tuple[str, ...]
    offsets: array[int]
    sizes: array[int]

    def read(self, positions: Sequence[int]) -> Iterator[bytes]:
        """Read the members at these positions; of huge ones the part that the server refuses.

        Raises:
            EvaluationError: the archive cannot be read, or is shorter than when it was opened.
        """
        try:
            with self.file.open("rb") as archive:
                for position in positions:
                    archive.seek(self.offsets[position])
                    size = min(self.sizes[position], MAX_IMAGE)
                    data = archive.read(size)
                    if len(data) < size:
                        raise EvaluationError(f"{self.file} has changed; start again")
                    yield data
        except OSError as error:
            raise EvaluationError(f"cannot read {self.file}: {error.strerror}") from error


def list_members(file: Path) -> TarImages:
    """Find the images in an uncompressed tar; only the members' headers are read.

    Hidden members are ignored. Of a repeated name the last member counts, as when the archive is
    unpacked. These, links and other members that are no images are counted in warnings.

    Raises:
        EvaluationError: the archive cannot be read, is damaged, or has archives in it.
    """
    found: dict[str, tuple[int, int]] = {}
    ignored = _Ignored()
    for member in _members(file):
        name = printable(member.name).removeprefix("./")
        if member.isdir() or any(map(is_hidden, name.split("/"))):
            continue
        suffix = PurePosixPath(name).suffix.lower()
        if suffix == ".tar":
            raise EvaluationError(
                f"{file} has archives in it, such as {name!r}; unpack all of them"
            )
        if suffix not in SUFFIXES:
            if suffix not in NOT_IMAGES:
                ignored.others.append(name)
            continue
        if not member.isreg() or member.issparse():
            ignored.special.append(name)
            continue
        if name in found:
            ignored.repeated.append(name)
        found[name] = (member.offset_data, member.size)
    ignored.say(file)
    names = tuple(sorted(found))
    offsets = array("q", (found[name][0] for name in names))
    return TarImages(file, names, offsets, array("q", (found[name][1] for name in names)))


@dataclass(frozen=True)
class _Ignored:
    """Names of members that are not images, for warnings."""

    others: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    def say(self, file: Path) -> None:
        for names, reason in (
            (self.others, "not JPEG, PNG, WebP, BMP or GIF by the suffix"),
            (self.special, "a link, or not a plain file"),
            (self.repeated, "replaced by a later member of the same name"),
        ):
            if names:
                LOGGER.warning(
                    "%s: ignored %s (%s): %s",
                    *(file, count(len(names), "member"), reason, examples(names)),
                )


def _members(file: Path) -> Iterator[tarfile.TarInfo]:
    try:
        with (
            file.open("rb", buffering=0) as raw,
            _Limited(raw) as content,
            tarfile.open(
                fileobj=content, mode="r:", encoding="utf-8", errors="surrogateescape"
            ) as archive,
        ):
            yield from members(archive)
            _refuse_rest(file, archive.offset)
    except DAMAGED as error:
        raise EvaluationError(
            f"{file} is damaged or incomplete ({first_line(error)}); copy or download it again"
        ) from error
    except OSError as error:
        raise EvaluationError(f"cannot read {file}: {error.strerror}") from error


class _Limited(io.BufferedReader):
    """A file for tarfile, which would read a header of any size into memory."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError("a header is too large")
        return super().read(size)


def _refuse_rest(file: Path, end: int) -> None:
    """Check that the archive ends with blocks of zeros; `tarfile` stops at any damaged header."""
    with file.open("rb") as archive:
        archive.seek(end)
        rest = archive.read(AFTER_END)
    if len(rest) < tarfile.BLOCKSIZE or any(rest[: tarfile.BLOCKSIZE]):
        raise EvaluationError(
            f"{file} is damaged or incomplete after byte {end}; copy or download it again"
        )
    if rest.strip(b"\0"):
        raise EvaluationError(f"{file} is several archives, one after the other; unpack them")


def is_tar(file: Path) -> bool:
    """Whether a file begins with the header of a member.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as archive:
        start = archive.read(tarfile.BLOCKSIZE)
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def refuse_compressed(file: Path) -> None:
    """Refuse a file that would have to be decompressed up to each image.

    Raises:
        EvaluationError: it is one, or cannot be read.
    """
    try:
        with file.open("rb") as archive:
            start = archive.read(max(map(len, COMPRESSED)))
    except OSError as error:
        raise EvaluationError(f"cannot read {file}: {error.strerror}") from error
    for signature, command in COMPRESSED.items():
        if start.startswith(signature):
            raise EvaluationError(
                f"{file} is compressed, so its images cannot be read in place; run: "
                f"{command} {shlex.quote(str(file))}"
            )
