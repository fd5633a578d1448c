"""Tells which files a GPU surely decodes as the CPU does.

All others, and those that are invalid, are left to the CPU, which decides about them.
"""

from dataclasses import dataclass

from PIL.ImageFile import ImageFile

from . import containers
from .base64_text import file_content
from .file_end import END_OF_IMAGE, START_OF_SCAN
from .imaging import Picture
from .preprocessing import OnCpu
from .recipe import Size

# 96 MB of pixels, and as much again for the decoder. Larger images are rare.
MAX_PIXELS = 32_000_000

BASELINE, PROGRESSIVE = 0xC0, 0xC2  # codes of start-of-frame markers, both with Huffman codes
# The components of an image in YCbCr, as JFIF numbers them. Of others, decoders guess the colours.
YCBCR = [1, 2, 3]
GREY = [1]
# Horizontal and vertical sampling factors of luma, where those of both chroma components are 1:
# 4:4:4, 4:2:2, 4:2:0, 4:4:0 and 4:1:1.
SUBSAMPLINGS = ((1, 1), (2, 1), (2, 2), (1, 2), (4, 1))
ADOBE_YCBCR = 1


@dataclass(frozen=True)
class Jpeg:
    """A file that a GPU decodes.

    Attributes:
        data: the file without metadata.
        size: height and width as it is stored.
        orientation: the EXIF orientation, 1 to 8.
    """

    data: bytes
    size: Size
    orientation: int

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.size[0] * self.size[1]


def read(data: bytes, on_cpu: OnCpu) -> Jpeg | None:
    """Read the header of a file, or base64, and compare it with the limits.

    Returns:
        None if the CPU has to decide about it.
    """
    try:
        content = file_content(data)
        if not content.startswith(b"\xff\xd8") or len(content) > on_cpu.limits.max_bytes:
            return None
        file = containers.strip(content)
        picture = Picture(file, on_cpu.limits, on_cpu.recipe, on_cpu.crops)
    except Exception:  # noqa: BLE001 - decoders raise almost any exception for broken files
        return None
    complete = _complete(file)
    if complete is None or not _is_usual(picture.image, file):
        return None
    read = Jpeg(complete, picture.full, file.orientation)
    return read if read.pixels <= MAX_PIXELS else None


def _complete(file: containers.Stripped) -> bytes | None:
    """Return the file without what follows the picture; None if its end is missing or in doubt."""
    if file.data.endswith(END_OF_IMAGE):
        return file.data
    if file.scans > 1:  # tables between the scans may have these bytes in them
        return None
    end = file.data.find(END_OF_IMAGE, file.data.find(START_OF_SCAN))
    return None if end < 0 else file.data[: end + len(END_OF_IMAGE)]


def _is_usual(image: ImageFile, file: containers.Stripped) -> bool:
    """Tell whether an opened file has a frame, colours and sampling factors of usual JPEGs."""
    is_baseline = file.frame == BASELINE and file.scans == 1
    if not (is_baseline or file.frame == PROGRESSIVE):
        return False
    layers: list[tuple[int, int, int, int]] = image.layer  # type: ignore[attr-defined]
    luma, *chroma = [(across, down) for _, across, down, _ in layers]
    numbers = [number for number, *_ in layers]
    if numbers == GREY:
        return image.mode == "L" and luma == (1, 1)
    is_ycbcr = image.info.get("adobe_transform", ADOBE_YCBCR) == ADOBE_YCBCR
    return (
        image.mode == "RGB"
        and numbers == YCBCR
        and is_ycbcr
        and luma in SUBSAMPLINGS
        and chroma == [(1, 1), (1, 1)]
    )
