"""Image sources, and how each becomes the bytes of an image file."""

from __future__ import annotations

import asyncio
import glob
import io
import os
import select
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard

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

# The suffixes of the formats that the server decodes; a folder is searched for them.
SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp"),
        *(".png", ".apng", ".webp", ".bmp", ".dib", ".gif"),
    ]
)
# Pillow's modes that PNG can store; images in other modes are converted to RGB.
PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
UNSCALED_MODES = {"I", "F"}  # they do not define which value is white
PNG_COMPRESSION = 1  # the fastest level
ORIENTATION = 0x0112  # the EXIF tag
ORIENTATIONS = range(2, 9)  # that change the image
DOWNLOAD_SECONDS = 30
PIPE_SECONDS = 30


def expand(sources: Iterable[Source], *, recursive: bool = False) -> Iterator[Source]:
    """Replace each folder and each pattern such as `photos/*.jpg` by its images, sorted.

        for path in expand(["photos", "more/*.png", "https://example.com/cat.jpg"]):
            ...

    `recursive` includes subfolders and lets `**` match any number of them. A folder is searched
    for the suffixes of the formats that the server decodes, without files and subfolders whose
    names begin with a dot. A folder that cannot be listed, a folder without images and a pattern
    without matches are kept, and fail when they are loaded.

    Raises:
        Exception: whatever `sources` raises.
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
        InvalidImage: the source cannot be read, or is not an image, whatever the reason.
    """
    try:
        data = await _data(source)
    except InvalidImage:
        raise
    except Exception as error:
        raise InvalidImage(_reason(error)) from error
    if not isinstance(data, bytes):
        raise InvalidImage(f"its content is {type(data).__name__}, not bytes")
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
    if _is_picture(source):
        return str(getattr(source, "filename", "")) or f"image {source.width} x {source.height}"
    is_file = hasattr(source, "read")
    return str(getattr(source, "name", "file object")) if is_file else type(source).__name__


async def _data(source: Source) -> bytes:
    if isinstance(source, ImageFile):
        return source.data
    if isinstance(source, bytes):
        return source
    if _is_url(source):
        return await _download(source)
    return await asyncio.to_thread(_read, source)


def _read(source: Any) -> bytes:  # noqa: ANN401 - it can be anything
    if isinstance(source, str | Path):
        return _read_file(Path(source))
    if isinstance(source, np.ndarray):
        return _png(_image(source))
    if _is_picture(source):
        return _png(source)
    if isinstance(source, io.TextIOBase):
        raise InvalidImage("the file is opened as text: open it in binary mode")
    if not hasattr(source, "read"):
        raise InvalidImage(
            f"{type(source).__name__} is not an image source: give a path, a URL, bytes, "
            "a binary file object, a Pillow image or an array"
        )
    data: bytes = source.read()
    return data


def _reason(error: Exception) -> str:
    """Explain in one line why a source cannot be loaded."""
    if isinstance(error, IsADirectoryError):
        return "there is no image in this folder"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).splitlines()
    return f"cannot be read: {lines[0] if lines else type(error).__name__}"


def _images_of(path: Path, *, recursive: bool) -> list[Path]:
    try:
        if path.is_dir():
            return _images_in(path, recursive=recursive)
        if not path.exists() and glob.has_magic(str(path)):
            matches = glob.iglob(str(path), recursive=recursive)  # noqa: PTH207 - may be absolute
            return sorted(file for file in map(Path, matches) if file.is_file())
    except (OSError, ValueError):  # for example a name that is too long or contains NUL
        pass  # loading it will tell why
    return []


def _images_in(folder: Path, *, recursive: bool) -> list[Path]:
    """List a folder's images, and the folders in it that cannot be listed."""
    found: list[Path] = []
    errors: list[OSError] = []
    for path, folders, files in os.walk(folder, onerror=errors.append):
        folders[:] = [name for name in folders if recursive and not _is_hidden(name)]
        images = (name for name in files if Path(name).suffix.lower() in SUFFIXES)
        found += [Path(path, name) for name in images if not _is_hidden(name)]
    return sorted([*found, *(Path(error.filename) for error in errors)])


def _is_hidden(name: str) -> bool:
    """Whether the name begins with a dot, as `.thumbnails` and macOS's `._cat.jpg` do."""
    return name.startswith(".")


def _is_url(source: Source) -> TypeGuard[str]:
    return isinstance(source, str) and source.startswith(("http://", "https://"))


def _is_picture(source: object) -> TypeGuard[Picture]:
    pillow = sys.modules.get("PIL.Image")  # nobody has a Pillow image before it is imported
    return pillow is not None and isinstance(source, pillow.Image)


def _read_file(path: Path) -> bytes:
    mode = path.stat().st_mode
    if stat.S_ISFIFO(mode):
        return _read_pipe(path)
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return path.read_bytes()
    raise InvalidImage("not a file")


def _read_pipe(path: Path) -> bytes:
    """Read a named pipe, to which a writer may never come."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as pipe:  # noqa: PTH123
        if not select.select([pipe], [], [], PIPE_SECONDS)[0]:
            raise InvalidImage(f"nothing is written to this pipe within {PIPE_SECONDS} s")
        os.set_blocking(pipe.fileno(), True)
        return pipe.read()


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
    from PIL.Image import fromarray  # noqa: PLC0415 - needed for images in memory only

    is_rgb = array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3  # noqa: PLR2004
    if not is_rgb or not array.size:
        raise InvalidImage(
            f"{array.dtype} {list(array.shape)} is not an image: give uint8 [height, width, 3]"
        )
    return fromarray(array)


def _png(image: Picture) -> bytes:
    from PIL.Image import Exif  # noqa: PLC0415 - needed for images in memory only

    if image.mode in UNSCALED_MODES:
        raise InvalidImage(
            f"mode {image.mode} does not define which value is white: convert to RGB, L or I;16"
        )
    # Of the metadata only the orientation matters, and the rest may not be writable.
    exif = Exif()
    orientation = image.getexif().get(ORIENTATION)
    if orientation in ORIENTATIONS:
        exif[ORIENTATION] = orientation
    if image.mode not in PNG_MODES:
        image = _converted(image)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=PNG_COMPRESSION, exif=exif, icc_profile=None)
    return buffer.getvalue()


def _converted(image: Picture) -> Picture:
    from PIL.Image import fromarray  # noqa: PLC0415 - needed for images in memory only

    if image.mode.startswith("I;16"):  # another byte order; convert() would make most pixels white
        return fromarray(np.asarray(image).astype("<u2"))
    return image.convert("RGBA" if image.has_transparency_data else "RGB")
