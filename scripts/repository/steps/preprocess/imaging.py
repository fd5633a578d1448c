"""Decodes image files and crops them as a recipe says."""

import io

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from .recipe import Recipe
from .resizing import Box, resize

# Untrusted bytes reach only these decoders; Pillow has about forty more.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

# A decoded image takes three bytes a pixel, so at most 300 MB. This is checked before decoding.
# Pillow's own limit is turned off, since it only warns at first.
MAX_PIXELS = 100_000_000
Image.MAX_IMAGE_PIXELS = None

# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if both sides stay at least this many times
# `Recipe.resize`. With 1 the result differs by up to 22 grey levels, with 2 by up to 5 (mean 0.2).
DRAFT_MARGIN = 2

# For each EXIF orientation: the transposition that turns the image upright, and the indices of the
# stored image's sides (left, top, right, bottom) that become the upright image's sides, in order.
UPRIGHT = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, (2, 1, 0, 3)),
    3: (Image.Transpose.ROTATE_180, (2, 3, 0, 1)),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, (0, 3, 2, 1)),
    5: (Image.Transpose.TRANSPOSE, (1, 0, 3, 2)),
    6: (Image.Transpose.ROTATE_270, (3, 0, 1, 2)),
    7: (Image.Transpose.TRANSVERSE, (3, 2, 1, 0)),
    8: (Image.Transpose.ROTATE_90, (1, 2, 3, 0)),
}


class ImageError(ValueError):
    """The bytes are not an image that can be classified; the message says why."""


def load(data: bytes, recipe: Recipe) -> Image.Image:
    """Decode an image, resize its shorter side bilinearly, and keep the centre.

    Returns:
        An RGB image of `crop` x `crop` pixels.

    Raises:
        ImageError: as `decode` raises.
    """
    image, box = _decode(data, least=DRAFT_MARGIN * recipe.resize)
    return crop_to(image, recipe, box)


def decode(data: bytes) -> Image.Image:
    """Decode a JPEG, PNG, WebP, BMP or GIF (its first frame) to an upright RGB image.

    Greyscale, palette, CMYK and 16-bit images are converted, transparent pixels are blended with
    white, and the EXIF orientation is applied.

    Raises:
        ImageError: the format is not supported, the file is broken, or it has too many pixels.
    """
    image, _ = _decode(data)
    return image


def _decode(data: bytes, *, least: int | None = None) -> tuple[Image.Image, Box]:
    """Decode an image; with `least`, a JPEG may be reduced to sides of at least `least` pixels.

    Returns:
        The image, and the box of the picture in it: a reduced one may end within its last pixels.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(image)
        smaller = image.draft(None, (least, least)) if least else None
        image.load()
        width, height = smaller[1][2:] if smaller else image.size
        upright, box = _upright(image, (0, 0, width, height))
        return _to_rgb(upright), box
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(
            f"not an image ({len(data)} bytes); send {_list(FORMATS)}, in JSON as base64"
        ) from None
    except Exception as error:  # decoders raise almost any exception for broken files
        raise ImageError(f"broken image: {error}") from error


def _list(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels; the limit is {MAX_PIXELS} pixels")


def _upright(image: Image.Image, box: Box) -> tuple[Image.Image, Box]:
    # ImageOps.exif_transpose fails on EXIF data that cannot be written back.
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - the pixels are intact even if the metadata is not
        orientation = None
    if orientation not in UPRIGHT:
        return image, box
    transpose, sides = UPRIGHT[orientation]
    left, top, right, bottom = box
    margins = (left, top, image.width - right, image.height - bottom)
    image = image.transpose(transpose)
    left, top, right, bottom = (margins[side] for side in sides)
    return image, (left, top, image.width - right, image.height - bottom)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image  # avoids the copy that `convert` makes
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits at 255. Of 16-bit colour it keeps the upper byte, as here.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def crop_to(image: Image.Image, recipe: Recipe, box: Box | None = None) -> Image.Image:
    """Resize the shorter side to `recipe.resize`, bilinearly, and keep the centre.

    The arithmetic follows the ONNX Model Zoo's imagenet_preprocess.py: the long side is rounded,
    and the crop starts at `width // 2 - crop // 2`. Only the pixels of the crop are computed, which
    differs by at most two grey levels from resizing the whole image.

    Args:
        image: an RGB image.
        recipe: the preprocessing variant.
        box: the part of the image to use; all of it by default.

    Returns:
        An image of `crop` x `crop` pixels.
    """
    return resize(image, recipe.crop, kept(box or (0, 0, *image.size), recipe))


def kept(box: Box, recipe: Recipe) -> Box:
    """Compute the part of a picture that a recipe keeps after resizing and cropping."""
    left, top, right, bottom = box
    ratio = recipe.resize / min(right - left, bottom - top)
    across = _kept_of_side(left, right, ratio, recipe.crop)
    down = _kept_of_side(top, bottom, ratio, recipe.crop)
    return across[0], down[0], across[1], down[1]


def _kept_of_side(start: float, end: float, ratio: float, crop: int) -> tuple[float, float]:
    """Compute where on the original side the centre crop of the resized side starts and ends."""
    resized = round((end - start) * ratio)
    scale = (end - start) / resized
    first = resized // 2 - crop // 2
    # A rounding error may put the result beyond the end.
    return start + first * scale, min(start + (first + crop) * scale, end)
