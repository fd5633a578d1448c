"""From an encoded image to the pixels that a recipe keeps of it."""

import io

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from .recipe import Recipe
from .resizing import Box, resize

# Only these decoders meet a stranger's bytes; Pillow has some forty more.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

# A decoded image takes three bytes a pixel: 300 MB at the most. Checked here, before anything is
# decoded, in place of Pillow's own bound, which warns first and fails only later.
MAX_PIXELS = 100_000_000
Image.MAX_IMAGE_PIXELS = None

# A JPEG is decoded at a half, a quarter or an eighth of its size where that leaves this many times
# what the recipe resizes to. At 1 the result is up to 22 grey levels off, at 2 up to 5 (mean 0.2).
DRAFT_MARGIN = 2

# For each EXIF orientation what turns the image upright, and which of the stored image's sides
# (left, top, right, bottom) are then the left, the top, the right and the bottom.
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
    """These bytes are no image that can be classified; the message says why."""


def load(data: bytes, recipe: Recipe) -> Image.Image:
    """Decode an image, resize its shorter side bilinearly, and keep the centre.

    Returns:
        An RGB image of `crop` x `crop` pixels.

    Raises:
        ImageError: as `decode` does.
    """
    image, box = _decode(data, least=DRAFT_MARGIN * recipe.resize)
    return crop_to(image, recipe, box)


def decode(data: bytes) -> Image.Image:
    """Decode a JPEG, PNG, WebP, BMP or GIF (its first frame) to an upright RGB image.

    Grey, palette, CMYK and 16-bit images are converted, transparent pixels are laid on white, and
    the EXIF orientation is followed.

    Raises:
        ImageError: the bytes are in none of these formats, broken, or of too many pixels.
    """
    image, _ = _decode(data)
    return image


def _decode(data: bytes, *, least: int | None = None) -> tuple[Image.Image, Box]:
    """Decode, a JPEG perhaps smaller than it is, with both sides at least so long.

    Returns:
        The image, and where in it the picture is: a smaller one may end within its last pixels.
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
    except Exception as error:  # broken files make decoders raise almost anything
        raise ImageError(f"a broken image: {error}") from error


def _list(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels; at most {MAX_PIXELS} are taken")


def _upright(image: Image.Image, box: Box) -> tuple[Image.Image, Box]:
    # Unlike ImageOps.exif_transpose this survives EXIF data that cannot be written back.
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - broken metadata does not make broken pixels
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
        return image  # `convert` would copy it
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits at 255; the upper byte is what it keeps of 16-bit colour.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def crop_to(image: Image.Image, recipe: Recipe, box: Box | None = None) -> Image.Image:
    """Resize the shorter side to `recipe.resize`, bilinearly, and keep the centre.

    The arithmetic is that of the ONNX Model Zoo's imagenet_preprocess.py: the long side is
    rounded, and the crop starts at `width // 2 - crop // 2`. Only what the crop keeps is computed,
    within two grey levels of what it would be in the whole. `box` is the part of the image to take
    for the whole of it.

    Returns:
        An image of `crop` x `crop` pixels.
    """
    return resize(image, recipe.crop, kept(box or (0, 0, *image.size), recipe))


def kept(box: Box, recipe: Recipe) -> Box:
    """Find which part of a picture a recipe resizes to the crop."""
    left, top, right, bottom = box
    ratio = recipe.resize / min(right - left, bottom - top)
    across = _kept_of_side(left, right, ratio, recipe.crop)
    down = _kept_of_side(top, bottom, ratio, recipe.crop)
    return across[0], down[0], across[1], down[1]


def _kept_of_side(start: float, end: float, ratio: float, crop: int) -> tuple[float, float]:
    """Find where on a side the centre crop of the resized side begins and ends."""
    resized = round((end - start) * ratio)
    scale = (end - start) / resized
    first = resized // 2 - crop // 2
    # What is computed may be above the end by a rounding.
    return start + first * scale, min(start + (first + crop) * scale, end)
