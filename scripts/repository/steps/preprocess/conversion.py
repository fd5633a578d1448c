"""Converts a part of an image to RGB, in bands, so that no second image of its size exists."""

import math

import numpy as np
from PIL import Image

BAND_PIXELS = 1 << 18
WHITE = 255


def to_rgb(
    image: Image.Image, area: tuple[int, int, int, int], factors: tuple[int, int] = (1, 1)
) -> Image.Image:
    """Convert an area of an image to RGB on white, and reduce it.

    Greyscale, palette, CMYK and 16-bit pixels are converted, transparent ones blended with white.

    Args:
        image: an image of any mode.
        area: left, top, right and bottom of the area in pixels.
        factors: how many pixels, across and down, are averaged to one.

    Returns:
        An image of the area's size divided by `factors` and rounded up.
    """
    left, top, right, bottom = area
    across, down = factors
    rows = down * max(1, BAND_PIXELS // ((right - left) * down))
    bands = (
        _convert(image.crop((left, start, right, min(start + rows, bottom))), factors)
        for start in range(top, bottom, rows)
    )
    if rows >= bottom - top:
        return next(bands)
    size = (math.ceil((right - left) / across), math.ceil((bottom - top) / down))
    converted = Image.new("RGB", size)
    for index, band in enumerate(bands):
        converted.paste(band, (0, index * rows // down))
    return converted


def _convert(band: Image.Image, factors: tuple[int, int]) -> Image.Image:
    rgb = _on_white(band)
    return rgb if factors == (1, 1) else rgb.reduce(factors)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Keep the upper byte, as Pillow does with 16-bit colour; `convert` would clip at 255."""
    deep = np.asarray(image)
    grey = (deep >> 8).astype(np.uint8)
    if "transparency" in image.info:
        grey[deep == image.info["transparency"]] = WHITE
    return Image.fromarray(grey).convert("RGB")
