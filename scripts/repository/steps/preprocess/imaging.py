"""From an encoded image to pixels, and from pixels to the network's input."""

import io

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from .recipe import Recipe

# Only these decoders meet a stranger's bytes; Pillow has some forty more.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

# A decoded image takes three bytes a pixel: 300 MB at the most. Checked here, before anything is
# decoded, in place of Pillow's own bound, which warns first and fails only later.
MAX_PIXELS = 100_000_000
Image.MAX_IMAGE_PIXELS = None

# A strip one pixel high, resized by its shorter side, would grow to gigabytes. No more of its
# long side than this many times the shorter one is looked at.
MAX_ASPECT = 16

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """These bytes are no image that can be classified; the message says why."""


def decode(data: bytes) -> Image.Image:
    """Decode a JPEG, PNG, WebP, BMP or GIF (its first frame) to an upright RGB image.

    Grey, palette, CMYK and 16-bit images are converted, transparent pixels are laid on white, and
    the EXIF orientation is followed.

    Raises:
        ImageError: the bytes are in none of these formats, broken, or of too many pixels.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(image)
        image.load()
        return _to_rgb(_upright(image))
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"not an image ({len(data)} bytes); send {_list(FORMATS)}") from None
    except Exception as error:  # broken files make decoders raise almost anything
        raise ImageError(f"a broken image: {error}") from error


def _list(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels; at most {MAX_PIXELS} are taken")


def _upright(image: Image.Image) -> Image.Image:
    # Unlike ImageOps.exif_transpose this survives EXIF data that cannot be written back.
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - broken metadata does not make broken pixels
        orientation = None
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits at 255; the upper byte is what it keeps of 16-bit colour.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def crop_to(image: Image.Image, recipe: Recipe) -> Image.Image:
    """Resize the shorter side to `recipe.resize`, bilinearly, and keep the centre.

    The arithmetic is that of the ONNX Model Zoo's imagenet_preprocess.py: the long side is
    rounded, and the crop starts at `width // 2 - crop // 2`.

    Returns:
        An image of `crop` x `crop` pixels.
    """
    image = _without_far_ends(image)
    ratio = recipe.resize / min(image.size)
    width, height = (round(side * ratio) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left = width // 2 - recipe.crop // 2
    top = height // 2 - recipe.crop // 2
    return image.crop((left, top, left + recipe.crop, top + recipe.crop))


def _without_far_ends(image: Image.Image) -> Image.Image:
    longest = MAX_ASPECT * min(image.size)
    width, height = (min(side, longest) for side in image.size)
    if (width, height) == image.size:
        return image
    left = (image.width - width) // 2
    top = (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


class Normalizer:
    """Writes an image as the FP32 [3, crop, crop] tensor of a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        std = np.array(recipe.std)
        self._scale = (1 / (255 * std)).astype(np.float32)
        self._offset = (-np.array(recipe.mean) / std).astype(np.float32)

    def write(self, image: Image.Image, out: npt.NDArray[np.float32]) -> None:
        """Fill `out` with `(pixel / 255 - mean) / std`, one plane for each channel."""
        pixels = np.asarray(image)
        for channel in range(3):
            np.multiply(pixels[:, :, channel], self._scale[channel], out=out[channel])
            out[channel] += self._offset[channel]
