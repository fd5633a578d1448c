"""Estimates what decoding an image takes, from its header.

The figures are upper bounds of measurements with Pillow 13.0 (libjpeg-turbo 3.2, libwebp 1.6,
zlib-ng 2.3) on one core of an AMD EPYC, with 9 to 25 megapixels of one colour, noise
and photographs. tests/unit/test_image_budget.py compares them with the process's memory.
"""

import math
from dataclasses import dataclass

from PIL.ImageFile import ImageFile

from . import transparency
from .containers import Stripped
from .errors import ImageError
from .limits import MIB, Limits

# How Pillow keeps a pixel of each mode; other modes take four bytes, RGB included.
BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2}
OTHER_MODES = 4

# WebPAnimDecoder keeps two RGBA canvases and the lossless decoder another picture; Pillow copies
# the result to a bytes object, and from there to its own image.
WEBP_BYTES_PER_PIXEL = 16
# The whole file and the decoder's copy of it, next to the bytes that were received.
WEBP_FILE_COPIES = 3
# Pillow's decoder for run lengths is written in Python: a bytearray, its copy, and the image.
RLE_BYTES_PER_PIXEL = 3
COEFFICIENT_BYTES = 2  # libjpeg's JCOEF

DEEP_TRANSPARENCY_BYTES = 5  # the lower bytes and the alpha channel

# Nanoseconds for each pixel, and for each byte of the file.
PIXEL_NS = {"JPEG": 7, "PNG": 6, "WEBP": 46, "GIF": 8, "BMP": 4}
BYTE_NS = {"JPEG": 5, "PNG": 0, "WEBP": 0, "GIF": 0, "BMP": 0}
PNG_CHANNELS = {"LA": 2, "RGB": 3, "RGBA": 4}
PNG_RAW_BYTE_NS = 3  # for each byte of the inflated rows: RGB has 3 a pixel, 16-bit RGBA has 8
BUFFERED_BYTE_NS = 35  # of a progressive JPEG
ARITHMETIC_BYTE_NS = 80  # of a JPEG with arithmetic coding
SCAN_PIXEL_NS = 0.7  # for each scan of a progressive JPEG, even an empty one
RLE_PIXEL_NS, RLE_BYTE_NS = 80, 110
# Conversion to RGB, transparency and resizing.
CONVERSION_NS = 6

MARGIN = MIB  # buffers that do not depend on the image's size


@dataclass(frozen=True)
class Cost:
    """What decoding takes: bytes of memory beyond the file's own, and seconds of one processor."""

    memory: int
    seconds: float


def check_size(size: tuple[int, int], limits: Limits) -> None:
    """Compare width and height with the limits.

    Raises:
        ImageError: there are too many pixels, or a side is too long.
    """
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageError(f"{width} x {height} pixels; the limit is {limits.max_pixels} pixels")
    if max(width, height) > limits.max_side:
        raise ImageError(
            f"{width} x {height} pixels; the limit of a side is {limits.max_side} pixels"
        )


def check_cost(cost: Cost, limits: Limits) -> None:
    """Compare the cost of decoding with the limits.

    Raises:
        ImageError: decoding takes too much memory or time.
    """
    advice = "send a smaller image, or a baseline JPEG"
    if cost.memory > limits.max_memory:
        raise ImageError(
            f"the image needs {math.ceil(cost.memory / MIB)} MiB to decode; "
            f"the limit is {limits.max_memory // MIB} MiB; {advice}"
        )
    if cost.seconds > limits.max_seconds:
        raise ImageError(
            f"the image needs {cost.seconds:.1f} s to decode; "
            f"the limit is {limits.max_seconds:g} s; {advice}"
        )


def estimate(image: ImageFile, file: Stripped, size: tuple[int, int]) -> Cost:
    """Estimate the cost of `image.load()` and of what follows it.

    Args:
        image: an opened image, with its draft size if it has one.
        file: the file that it was opened from.
        size: the width and height in the file.
    """
    pixels = size[0] * size[1]
    mode = image.mode
    own = image.width * image.height * BYTES_PER_PIXEL.get(mode, OTHER_MODES)
    kind = str(image.format)
    nanoseconds = float(pixels * (PIXEL_NS[kind] + CONVERSION_NS)) + len(file.data) * BYTE_NS[kind]
    memory = own + len(file.data) + MARGIN
    if kind == "JPEG":
        memory += _coefficients(image, file, size)
        nanoseconds += _entropy_coding_ns(file, pixels)
    elif kind == "PNG":
        nanoseconds += pixels * _png_bytes_per_pixel(image) * PNG_RAW_BYTE_NS
        if transparency.is_deep(image):  # decoded twice
            memory += pixels * DEEP_TRANSPARENCY_BYTES
            nanoseconds *= 2
    elif kind == "WEBP":
        memory = pixels * WEBP_BYTES_PER_PIXEL + len(file.data) * WEBP_FILE_COPIES + MARGIN
    elif image.tile and image.tile[0].codec_name == "bmp_rle":
        memory = pixels * RLE_BYTES_PER_PIXEL + len(file.data) + MARGIN
        nanoseconds = pixels * RLE_PIXEL_NS + len(file.data) * RLE_BYTE_NS
    return Cost(memory, nanoseconds / 1e9)


def _coefficients(image: ImageFile, file: Stripped, size: tuple[int, int]) -> int:
    """Return the bytes of the coefficients that libjpeg keeps until it has read all scans."""
    if file.scans == 1:
        return 0
    layers: list[tuple[int, int, int, int]] = image.layer  # type: ignore[attr-defined]
    across, down = max(layer[1] for layer in layers), max(layer[2] for layer in layers)
    units = math.ceil(size[0] / (8 * across)) * math.ceil(size[1] / (8 * down))
    return units * sum(layer[1] * layer[2] for layer in layers) * 64 * COEFFICIENT_BYTES


def _entropy_coding_ns(file: Stripped, pixels: int) -> float:
    length = len(file.data)
    nanoseconds = ARITHMETIC_BYTE_NS * length if file.is_arithmetic else 0
    if file.scans > 1:
        nanoseconds += BUFFERED_BYTE_NS * length
    return nanoseconds + (file.scans - 1) * pixels * SCAN_PIXEL_NS


def _png_bytes_per_pixel(image: ImageFile) -> int:
    mode, _, depth = transparency.raw_mode(image).partition(";")
    return PNG_CHANNELS.get(mode, 1) * (2 if depth == "16B" else 1)
