"""Tells which files a GPU surely decodes as the CPU does.

All others, and those that are invalid, are left to the CPU, which decides about them.
"""

import math
import struct
from dataclasses import dataclass

import numpy as np

from . import containers, cost
from .base64_text import file_content
from .containers import MARKER, SEGMENT
from .file_end import END_OF_IMAGE, START_OF_SCAN
from .file_end import JPEG as START_OF_IMAGE
from .geometry import turned
from .preprocessing import OnCpu
from .recipe import Size

# 96 MB of pixels, and as much again for the decoder. Larger images are rare.
MAX_PIXELS = 32_000_000

FRAME = struct.Struct(">BBHBHHB")  # its marker, length, depth, height, width, components
BASELINE, PROGRESSIVE = 0xC0, 0xC2  # codes of start-of-frame markers, both with Huffman codes
DEPTH = 8
# The numbers of the components of images in grey and YCbCr. Of others, decoders guess the colours.
GREY, YCBCR = b"\1", b"\1\2\3"
# Horizontal and vertical sampling factors of the components: 4:4:4, 4:2:2, 4:2:0, 4:4:0 and 4:1:1.
SUBSAMPLINGS = {bytes([luma, 0x11, 0x11]) for luma in (0x11, 0x21, 0x22, 0x12, 0x41)}
# In the segment of Adobe's programs: the place of the kind of components, and that of YCbCr.
ADOBE_TRANSFORM, ADOBE_YCBCR = 11, 1
# What follows 0xFF in a scan: the byte is data, the marker is RST0 to RST7, or it is repeated.
IN_SCAN = np.zeros(256, bool)
IN_SCAN[[0x00, *range(0xD0, 0xD8), 0xFF]] = True


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
        return _read(file_content(data), on_cpu)
    except Exception:  # noqa: BLE001 - decoders raise almost any exception for broken files
        return None


def _read(content: bytes, on_cpu: OnCpu) -> Jpeg | None:
    limits, recipe = on_cpu.limits, on_cpu.recipe
    if not content.startswith(START_OF_IMAGE) or len(content) > limits.max_bytes:
        return None
    file = containers.strip(content)
    size = _size(file)
    if not size or math.prod(size) > MAX_PIXELS:
        return None
    cost.check_size(size, limits)
    upright = turned(size, file.orientation)
    fitted = cost.of_fitting(upright, upright, recipe, on_cpu.crops)
    estimate = cost.most_of_jpeg(file, size).then(fitted)
    cost.check_cost(estimate, limits)
    if file.scans > 1 and estimate.seconds > cost.SMALL_SECONDS:
        return None  # nvJPEG decodes the scans on the CPU, while the others of the batch wait
    complete = _complete(file)
    return Jpeg(complete, size, file.orientation) if complete else None


def _size(file: containers.Stripped) -> Size | None:
    """Return height and width, or None if frame, colours or sampling factors are unusual."""
    _, code, _, depth, height, width, count = FRAME.unpack_from(file.frame)
    components = file.frame[FRAME.size :]
    numbers, factors = components[::3], components[1::3]
    is_known = code == PROGRESSIVE or (code == BASELINE and file.scans == 1)
    is_grey = (count, numbers, factors) == (1, GREY, b"\x11")
    is_ycbcr = (count, numbers) == (3, YCBCR) and factors in SUBSAMPLINGS
    # A segment of Adobe's programs may say that the components are not what their numbers tell.
    adobe = file.data.find(b"Adobe", 0, file.header)
    is_plain = adobe < 0 or (is_ycbcr and file.data[adobe + ADOBE_TRANSFORM] == ADOBE_YCBCR)
    if depth == DEPTH and is_known and (is_grey or is_ycbcr) and is_plain and height and width:
        return height, width
    return None


def _complete(file: containers.Stripped) -> bytes | None:
    """Return the file without what follows the picture; None if its end is missing or in doubt.

    Of a file with one scan, the end is the first marker that is no part of the scan. Another marker
    there is an error, which not every decoder reports.
    """
    if file.scans > 1:
        return file.data if file.data.endswith(END_OF_IMAGE) else None
    content = np.frombuffer(file.data, np.uint8)
    (_, _, length) = SEGMENT.unpack_from(file.data, file.header)
    start = file.header + len(START_OF_SCAN) + length
    leads = start + (content[start:-1] == MARKER).nonzero()[0]
    others = leads[~IN_SCAN[content[leads + 1]]]
    end = int(others[0]) + len(END_OF_IMAGE) if len(others) else 0
    return file.data[:end] if file.data[:end].endswith(END_OF_IMAGE) else None
