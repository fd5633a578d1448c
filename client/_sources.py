"""Image sources, and how each becomes the bytes of an image file."""

from __future__ import annotations

import asyncio
import glob
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from ._exceptions import InvalidImage

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


@dataclass(frozen=True)
class ImageFile:
    """The bytes of an image file, and its name in results and errors.

    classifier.image(ImageFile("s3://photos/cat.jpg", data))
    """

    name: str
    data: bytes


Source: TypeAlias = "str | Path | bytes | ImageFile | BinaryIO | Picture | npt.NDArray[np.uint8]"

# A photograph of a cat, which the command classifies by default.
SAMPLE = Path(__file__).parent / "sample" / "chelsea.jpg"

# The formats that the server decodes; a folder is searched for them.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"}
# Pillow's modes that PNG can store; images in other modes are converted to RGB.
PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
PNG_COMPRESSION = 1  # the fastest level
DOWNLOAD_SECONDS = 30


def expand(sources: Iterable[Source], *, recursive: bool = False) -> Iterator[Source]:
    """Replace each folder and each pattern such as `photos/*.jpg` by its images, sorted.

        for path in expand(["photos", "more/*.png", "https://example.com/cat.jpg"]):
            ...

    `recursive` includes subfolders and lets `**` match any number of them. A folder is searched
    for the suffixes of the formats that the server decodes. A folder without images and a pattern
    without matches are kept, and fail when they are loaded.
    """
    for source in sources:
        if isinstance(source, str | Path) and not _is_url(source):
            yield from _images_of(Path(source), recursive=recursive) or (source,)
        else:
            yield source


async def load(source: Source) -> ImageFile:
    """Load a source as an image file without blocking the event loop.

    A path, URL or file object is read. A Pillow image or a uint8 array [height, width, 3] is
    encoded as PNG, which is lossless.

    Raises:
        InvalidImage: the source cannot be read, or is not an image.
    """
    if isinstance(source, ImageFile):
        return source
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, str) and _is_url(source):
        data = await _download(source)
    else:
        data = await asyncio.to_thread(_read, source)
    return ImageFile(name_of(source), data)


def name_of(source: Source) -> str:
    """Return the name of a source in results and errors."""
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, bytes):
        return f"{len(source)} bytes"
    if isinstance(source, ImageFile):
        return source.name
    if isinstance(source, np.ndarray):
        return f"array {' x '.join(map(str, source.shape))}"
    if hasattr(source, "size"):
        return str(getattr(source, "filename", "")) or f"image {source.size[0]} x {source.size[1]}"
    return str(getattr(source, "name", "file object"))


def _read(source: str | Path | BinaryIO | Picture | npt.NDArray[np.uint8]) -> bytes:
    if isinstance(source, str | Path):
        return _read_file(Path(source))
    if isinstance(source, np.ndarray):
        return _png(_image(source))
    # Tested by attribute, so that Pillow need not be imported.
    return _png(source) if hasattr(source, "size") else source.read()


def _images_of(path: Path, *, recursive: bool) -> list[Path]:
    if path.is_dir():
        files = path.rglob("*") if recursive else path.iterdir()
        return sorted(file for file in files if file.suffix.lower() in SUFFIXES and file.is_file())
    if not path.exists() and glob.has_magic(str(path)):
        matches = glob.iglob(str(path), recursive=recursive)  # noqa: PTH207 - may be absolute
        return sorted(file for file in map(Path, matches) if file.is_file())
    return []


def _is_url(source: Source) -> bool:
    return isinstance(source, str) and source.startswith(("http://", "https://"))


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except IsADirectoryError as error:
        raise InvalidImage("there is no image in this folder") from error
    except OSError as error:
        raise InvalidImage(str(error.strerror)) from error


async def _download(url: str) -> bytes:
    import aiohttp  # noqa: PLC0415 - slow, and needed for URLs only

    deadline = aiohttp.ClientTimeout(total=DOWNLOAD_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(
                timeout=deadline, trust_env=True, raise_for_status=True
            ) as session,
            session.get(url) as response,
        ):
            return await response.read()
    except asyncio.TimeoutError as error:
        message = f"cannot be downloaded: no response within {DOWNLOAD_SECONDS} s"
        raise InvalidImage(message) from error
    except (OSError, ValueError, aiohttp.ClientError) as error:
        raise InvalidImage(f"cannot be downloaded: {error}") from error


def _image(array: npt.NDArray[np.uint8]) -> Picture:
    from PIL.Image import fromarray  # noqa: PLC0415 - needed for arrays only

    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:  # noqa: PLR2004
        raise InvalidImage(
            f"{array.dtype} {list(array.shape)} is not an image: give uint8 [height, width, 3]"
        )
    return fromarray(array)


def _png(image: Any) -> bytes:  # noqa: ANN401
    buffer = io.BytesIO()
    exif = image.getexif()  # holds the orientation
    image = image if image.mode in PNG_MODES else image.convert("RGB")
    image.save(buffer, "PNG", compress_level=PNG_COMPRESSION, exif=exif)
    return buffer.getvalue()
