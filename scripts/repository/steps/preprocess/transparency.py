"""Corrects what Pillow makes of transparency.

A PNG's transparent colour (tRNS) is wrong at other depths than 8 bits, and a BMP's alpha may have
no meaning.
"""

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

# Pillow scales the pixels of these raw modes, and not the colour they are compared with.
SCALES = {"L;2": 255 // 3, "L;4": 255 // 15}
DEEP_COLOUR = "RGB;16B"
LOWER_BYTES = "RGB;16L"
BAND_ROWS = 64
OPAQUE = 255


def raw_mode(image: ImageFile) -> str:
    """Return the format of the pixels in an opened file, in Pillow's notation."""
    return str(image.tile[0].args) if image.tile else str(image.mode)


def scale(image: ImageFile) -> None:
    """Scale an opened greyscale image's transparent level to eight bits, as its pixels."""
    if "transparency" in image.info and (factor := SCALES.get(raw_mode(image))):
        image.info["transparency"] *= factor


def ignore_unused_alpha(image: Image.Image) -> None:
    """Make a decoded BMP opaque whose alpha is 0 everywhere, as programs show it."""
    if image.format == "BMP" and image.mode == "RGBA" and image.getbbox() is None:
        image.putalpha(OPAQUE)


def is_deep(image: ImageFile) -> bool:
    """Tell whether an opened image has a transparent colour of 16 bits a channel.

    Of such pixels Pillow keeps the upper bytes, which do not tell which ones are transparent.
    """
    return "transparency" in image.info and raw_mode(image) == DEEP_COLOUR


def read_lower_bytes(image: ImageFile) -> None:
    """Make an opened image of 16 bits a channel decode to the lower bytes."""
    image.tile = [tile._replace(args=LOWER_BYTES) for tile in image.tile]


def apply_deep(upper: Image.Image, lower: Image.Image) -> None:
    """Give an RGB image an alpha channel, from both bytes of its pixels and of `transparency`."""
    colour = np.array(upper.info.pop("transparency"))
    alpha = Image.new("L", upper.size, OPAQUE)
    for top in range(0, upper.height, BAND_ROWS):
        area = (0, top, upper.width, min(top + BAND_ROWS, upper.height))
        is_equal = (np.asarray(upper.crop(area)) == colour >> 8).all(axis=-1)
        is_equal &= (np.asarray(lower.crop(area)) == colour & 255).all(axis=-1)
        alpha.paste(Image.fromarray(np.where(is_equal, 0, OPAQUE).astype(np.uint8)), (0, top))
    upper.putalpha(alpha)
