"""What can be classified, and how it becomes the bytes of an image file."""

from __future__ import annotations

import glob
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from client._exceptions import InvalidImage

if TYPE_CHECKING:
    from PIL import Image

Source: TypeAlias = "str | Path | bytes | BinaryIO | Image.Image | npt.NDArray[np.uint8]"

# A cat, so that there is something to classify before any image is at hand.
SAMPLE = Path(__file__).parent / "sample" / "chelsea.jpg"

# What a folder is searched for: the formats that the server decodes.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"}
# What PNG holds of Pillow's modes; the others are converted before they are sent.
PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
FASTEST = 1  # of PNG's compression levels
DOWNLOAD_SECONDS = 30


def expand(sources: Iterable[str | Path], *, recursive: bool = False) -> Iterator[str | Path]:
    """Put the images in place of each folder and each pattern such as `photos/*.jpg`, sorted.

        for path in expand(["photos", "more/*.png", "https://example.com/cat.jpg"]):
            ...

    `recursive` looks into the folders below, and lets `**` stand for any number of them. A folder
    is searched for the formats that the server decodes, by their suffixes; one without any, or a
    pattern that nothing matches, gives nothing.
    """
    for source in sources:
        yield from _images_of(source, recursive=recursive)


def name_of(source: Source) -> str:
    """Name a source in results and errors."""
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, bytes):
        return f"{len(source)} bytes"
    if isinstance(source, np.ndarray):
        return f"array {' x '.join(map(str, source.shape))}"
    if hasattr(source, "size"):
        return str(getattr(source, "filename", "")) or f"image {source.size[0]} x {source.size[1]}"
    return str(getattr(source, "name", "file object"))


def read(source: Source) -> bytes:
    """Get the bytes of an image file.

    A path or URL is read, a file object is read to its end, and what is pixels already, a Pillow
    image or a uint8 array [height, width, 3], becomes a PNG, so that nothing of it is lost.

    Raises:
        InvalidImage: the source cannot be read, or is no picture.
    """
    if isinstance(source, bytes):
        return source
    if isinstance(source, np.ndarray):
        return _png(_picture(source))
    if isinstance(source, str) and _is_url(source):
        return _download(source)
    if isinstance(source, str | Path):
        return _read_file(Path(source))
    # Without importing Pillow: who has an image of it has done so.
    return _png(source) if hasattr(source, "size") else source.read()


def _images_of(source: str | Path, *, recursive: bool) -> list[str | Path]:
    if isinstance(source, str) and _is_url(source):
        return [source]
    path = Path(source)
    if path.is_dir():
        files = path.rglob("*") if recursive else path.iterdir()
        return sorted(file for file in files if file.suffix.lower() in SUFFIXES)
    if not path.exists() and glob.has_magic(str(source)):
        matches = glob.iglob(str(source), recursive=recursive)  # noqa: PTH207 - may be absolute
        return sorted(file for file in map(Path, matches) if file.is_file())
    return [source]


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidImage(str(error.strerror), source=str(path)) from error


def _download(url: str) -> bytes:
    import requests  # noqa: PLC0415 - only who has URLs waits for it

    try:
        response = requests.get(url, timeout=DOWNLOAD_SECONDS)
        response.raise_for_status()
    except requests.RequestException as error:
        raise InvalidImage(f"cannot be downloaded: {error}", source=url) from error
    return response.content


def _picture(array: npt.NDArray[np.uint8]) -> Image.Image:
    from PIL import Image  # noqa: PLC0415 - likewise

    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:  # noqa: PLR2004
        raise InvalidImage(
            f"{array.dtype} {list(array.shape)} is no picture; give uint8 [height, width, 3]",
            source=name_of(array),
        )
    return Image.fromarray(array)


def _png(image: Any) -> bytes:  # noqa: ANN401
    buffer = io.BytesIO()
    exif = image.getexif()  # holds the orientation
    image = image if image.mode in PNG_MODES else image.convert("RGB")
    image.save(buffer, "PNG", compress_level=FASTEST, exif=exif)
    return buffer.getvalue()
