"""Estimates what decoding an image takes, from its header.

The figures are upper bounds of measurements with Pillow 13.0 (libjpeg-turbo 3.2, libwebp 1.6,
zlib-ng 2.3) on one core of an AMD EPYC, with 9 to 25 megapixels of one colour, noise
and photographs. tests/unit/test_image_budget.py compares them with the process's memory.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL.ImageFile import ImageFile

from . import fitting, geometry, interpolation, resizing, transparency
from .containers import Stripped
from .errors import ImageError
from .limits import MIB, Limits
from .recipe import Recipe, Size
from .resizing import SUPPORT

# How Pillow keeps a pixel of each mode; other modes take four bytes, RGB included.
BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2}
OTHER_MODES = 4

# WebPAnimDecoder keeps two RGBA canvases and the lossless decoder another picture; Pillow copies
# the result to a bytes object, and from there to its own image.
WEBP_BYTES_PER_PIXEL = 16
# The whole file and the decoder's copy of it, next to the bytes that were received.
WEBP_FILE_COPIES = 3
# Pillow's decoder for run lengths is written in Python: a bytearray and its copy.
RLE_EXTRA_BYTES_PER_PIXEL = 2
COEFFICIENT_BYTES = 2  # libjpeg's JCOEF
JPEG_COLUMN_BYTES = 320  # libjpeg's rows, for each column that is decoded
COEFFICIENT_NS = 1  # for each byte
LARGEST_UNIT = 32  # pixels on a side that libjpeg decodes together, at the most

# A second decoding, of the lower bytes, and an alpha channel.
DEEP_TRANSPARENCY_BYTES, DEEP_TRANSPARENCY_NS = 5, 45

# Nanoseconds for each pixel in the file, and of a JPEG, for each pixel that is decoded.
PIXEL_NS = {"JPEG": 2, "PNG": 6, "GIF": 8, "BMP": 4}
JPEG_DECODED_NS = 6
WEBP_PIXEL_NS = 46
PNG_CHANNELS = {"LA": 2, "RGB": 3, "RGBA": 4}
PNG_RAW_BYTE_NS = 3  # for each byte of the inflated rows: RGB has 3 a pixel, 16-bit RGBA has 8
# Nanoseconds for each byte of a JPEG: with Huffman codes, in progressive ones, and with arithmetic
# coding.
HUFFMAN_BYTE_NS, PROGRESSIVE_BYTE_NS, ARITHMETIC_BYTE_NS = 5, 35, 80
SCAN_PIXEL_NS = 0.35  # for each scan of a progressive JPEG, even an empty one
RLE_PIXEL_NS, RLE_BYTE_NS = 80, 110
# For each decoded pixel: conversion to RGB, transparency, and resizing with a bilinear filter.
CONVERSION_NS = 6
WIDE_FILTER_NS = 2.5  # for each decoded pixel and each pixel that a filter reaches further
WEIGHT_NS = 2  # for each product of a pixel and a weight, where Pillow resizes a whole picture

BLENDING_NS = 120  # for each pixel that is interpolated without antialiasing

RGB_BYTES = 4  # as Pillow keeps a pixel
# In Pillow's tables, which also have two numbers for each resized pixel.
WEIGHT_BYTES, WEIGHT_TABLE_NS = 8, 25

# Most photographs take less: a JPEG of 24 megapixels 12 MiB and 0.1 s. The images of 16 processes
# take less than 1 GiB, if all but one are small and that one takes `Limits.max_memory`.
SMALL_BYTES = 20 * MIB
SMALL_SECONDS = 0.25

MARGIN = MIB  # buffers that do not depend on the image's size


@dataclass(frozen=True)
class Cost:
    """What decoding takes.

    Attributes:
        memory: bytes at the most, beyond the file's own.
        seconds: time of one processor.
        freed: those of the bytes that are free again when the pixels are decoded.
    """

    memory: int
    seconds: float
    freed: int = 0

    def then(self, next_cost: "Cost") -> "Cost":
        """Return the cost of this and of what follows, which uses the memory that is freed."""
        memory = max(self.memory, self.memory - self.freed + next_cost.memory)
        return Cost(memory, self.seconds + next_cost.seconds)

    def share(self, limits: Limits) -> float:
        """Return the larger share of a limit, at most 1 for an image within the limits."""
        return max(self.memory / limits.max_memory, self.seconds / limits.max_seconds)

    def is_small(self) -> bool:
        """Tell whether any number of such images may be decoded at the same time."""
        return self.memory <= SMALL_BYTES and self.seconds <= SMALL_SECONDS


def check_size(size: Size, limits: Limits) -> None:
    """Compare height and width with the limits.

    Raises:
        ImageError: there are too many pixels, or a side is too long.
    """
    height, width = size
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


def of_webp(file: Stripped, size: Size) -> Cost:
    """Estimate the cost of opening and decoding a WebP of this height and width."""
    pixels = size[0] * size[1]
    decoder = pixels * (WEBP_BYTES_PER_PIXEL - OTHER_MODES) + len(file.data) * WEBP_FILE_COPIES
    memory = pixels * OTHER_MODES + decoder + MARGIN
    return Cost(memory, pixels * (WEBP_PIXEL_NS + CONVERSION_NS) / 1e9, decoder)


def of_opened(image: ImageFile, file: Stripped, size: Size) -> Cost:
    """Estimate the cost of `image.load()` and of the conversion that follows it.

    Args:
        image: an opened image that is not a WebP, with its draft size if it has one.
        file: the file that it was opened from.
        size: the height and width in the file.
    """
    pixels = size[0] * size[1]
    decoded = image.width * image.height
    memory = decoded * BYTES_PER_PIXEL.get(image.mode, OTHER_MODES) + len(file.data) + MARGIN
    coefficients = 0
    nanoseconds = float(pixels * PIXEL_NS[str(image.format)] + decoded * CONVERSION_NS)
    if image.format == "JPEG":
        coefficients = _coefficients(image, file, size)
        memory += coefficients + image.width * JPEG_COLUMN_BYTES
        nanoseconds += decoded * JPEG_DECODED_NS + coefficients * COEFFICIENT_NS
        nanoseconds += _entropy_coding_ns(file, pixels)
    elif image.format == "PNG":
        nanoseconds += pixels * _png_bytes_per_pixel(image) * PNG_RAW_BYTE_NS
        if transparency.is_deep(image):
            memory += pixels * DEEP_TRANSPARENCY_BYTES
            nanoseconds += pixels * DEEP_TRANSPARENCY_NS
    elif image.tile and image.tile[0].codec_name == "bmp_rle":
        memory += pixels * RLE_EXTRA_BYTES_PER_PIXEL
        nanoseconds += pixels * RLE_PIXEL_NS + len(file.data) * RLE_BYTE_NS
    return Cost(memory, nanoseconds / 1e9, coefficients)


def most_of_jpeg(file: Stripped, size: Size) -> Cost:
    """Return at least what `of_opened` estimates for a JPEG, in grey or colour, of this size.

    It takes only what its header tells: not whether it is decoded at a reduced size.
    """
    pixels = size[0] * size[1]
    coefficients = 0
    if file.scans > 1:
        height, width = (side + 2 * LARGEST_UNIT for side in size)
        coefficients = 3 * height * width * COEFFICIENT_BYTES
    memory = pixels * OTHER_MODES + len(file.data) + MARGIN
    memory += coefficients + size[1] * JPEG_COLUMN_BYTES
    nanoseconds = float(pixels) * (PIXEL_NS["JPEG"] + CONVERSION_NS + JPEG_DECODED_NS)
    nanoseconds += coefficients * COEFFICIENT_NS + _entropy_coding_ns(file, pixels)
    return Cost(memory, nanoseconds / 1e9, coefficients)


def of_fitting(full: Size, size: tuple[float, float], recipe: Recipe, crops: int = 1) -> Cost:
    """Estimate the cost of resizing and cropping, beyond what `of_opened` and `of_webp` include.

    Args:
        full: the upright height and width in the file.
        size: the upright height and width that are decoded.
        recipe: what is made of the image.
        crops: how many pictures are made, one of `recipe.CROPS`.
    """
    wanted = geometry.crops(full, recipe, crops)
    fits = geometry.fits(wanted)
    if fitting.is_approximate(recipe):
        cost = _of_parts(size, fits, recipe)
    elif fitting.is_whole(recipe):
        cost = _of_whole(full, fits, recipe)
    else:
        cost = _of_blending(full, fits, recipe)
    pictures = len(fits) - 1 + sum(crop.is_mirrored for crop in wanted)  # beside the first
    memory = cost.memory + pictures * recipe.crop[0] * recipe.crop[1] * RGB_BYTES
    return Cost(memory, cost.seconds)


def _of_parts(size: tuple[float, float], fits: Sequence[geometry.Fit], recipe: Recipe) -> Cost:
    """Estimate the cost of what `fast` decoding does, for one part after the other.

    `of_opened` and `of_webp` include the conversion of all pixels, which is that of the first part.
    """
    costs = [_of_part(size, fit, recipe) for fit in fits]
    again = sum(math.prod(_source(fit, size)) for fit in fits[1:])
    seconds = sum(cost.seconds for cost in costs) + again * CONVERSION_NS / 1e9
    return Cost(max(cost.memory for cost in costs), seconds)


def _source(fit: geometry.Fit, size: tuple[float, float]) -> Size:
    """Return height and width of the pixels that a part is made from."""
    left, top, right, bottom = fit.source(size)
    return math.ceil(bottom - top), math.ceil(right - left)


def _of_part(size: tuple[float, float], fit: geometry.Fit, recipe: Recipe) -> Cost:
    """Estimate the cost of one part: conversion, and resizing in two passes."""
    height, width = _source(fit, size)
    across, down = fitting.reductions(size, fit, recipe)
    kept_height, kept_width = fit.kept_size
    between = max(width * kept_height, height * kept_width)  # rows first, or columns first
    pixels = width * height // (across * down) + between
    reach = SUPPORT[recipe.interpolation] - 1
    return Cost(pixels * RGB_BYTES, size[0] * size[1] * max(0, reach) * WIDE_FILTER_NS / 1e9)


def _of_blending(full: Size, fits: Sequence[geometry.Fit], recipe: Recipe) -> Cost:
    """Estimate the cost of `without_antialias`, which converts the pixels for each part again."""
    band = max(resizing.BAND_PIXELS, 2 * SUPPORT[recipe.interpolation] * full[1])
    blended = sum(math.prod(fit.kept_size) for fit in fits) * BLENDING_NS
    again = (len(fits) - 1) * full[0] * full[1] * CONVERSION_NS
    return Cost(math.ceil(band) * interpolation.BYTES_PER_PIXEL, (blended + again) / 1e9)


def _of_whole(full: Size, fits: Sequence[geometry.Fit], recipe: Recipe) -> Cost:
    """Estimate the cost of `resizing.whole`."""
    fit = fits[0]
    support = SUPPORT[recipe.interpolation]
    across, down = (
        resized * (math.ceil(2 * support * max(1, side / resized)) + 1)
        for side, resized in zip(full[::-1], fit.resized[::-1], strict=True)
    )
    height, width = full
    resized_height, resized_width = fit.resized
    left, _, right, _ = geometry.enclosing(each.kept for each in fits)
    kept_width = right - left
    rows = resizing.band_rows(full, fit)
    pixels = kept_width * (height + resized_height) + 2 * rows * (width + resized_width)
    tables = (across + down + 2 * sum(fit.resized)) * WEIGHT_BYTES
    products = across * height + down * kept_width
    weights = across * math.ceil(height / rows) + down
    seconds = (products * WEIGHT_NS + weights * WEIGHT_TABLE_NS) / 1e9
    return Cost(pixels * RGB_BYTES + tables, seconds)


def _coefficients(image: ImageFile, file: Stripped, size: Size) -> int:
    """Return the bytes of the coefficients that libjpeg keeps until it has read all scans."""
    if file.scans == 1:
        return 0
    layers: list[tuple[int, int, int, int]] = image.layer  # type: ignore[attr-defined]
    across, down = max(layer[1] for layer in layers), max(layer[2] for layer in layers)
    units = math.ceil(size[1] / (8 * across)) * math.ceil(size[0] / (8 * down))
    return units * sum(layer[1] * layer[2] for layer in layers) * 64 * COEFFICIENT_BYTES


def _entropy_coding_ns(file: Stripped, pixels: int) -> float:
    byte_ns = HUFFMAN_BYTE_NS if file.scans == 1 else PROGRESSIVE_BYTE_NS
    if file.is_arithmetic:
        byte_ns = ARITHMETIC_BYTE_NS
    return byte_ns * len(file.data) + (file.scans - 1) * pixels * SCAN_PIXEL_NS


def _png_bytes_per_pixel(image: ImageFile) -> int:
    mode, _, depth = transparency.raw_mode(image).partition(";")
    return PNG_CHANNELS.get(mode, 1) * (2 if depth == "16B" else 1)
