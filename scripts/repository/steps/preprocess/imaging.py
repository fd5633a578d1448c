"""Decodes image files and crops them as a recipe says."""

import io
import math
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from . import containers, conversion, cost, file_end, transparency
from .errors import Busy, ImageError
from .limits import Limits
from .recipe import Recipe
from .resizing import Box, resize
from .sharing import reserved

__all__ = ["Busy", "ImageError", "decode", "kept", "load"]

# Untrusted bytes reach only these decoders; Pillow has about forty more.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

# Pillow's own limit is turned off, since it only warns at first.
Image.MAX_IMAGE_PIXELS = None

# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size, and other images that are not RGB are reduced
# while they are converted, if both sides stay at least this many times `Recipe.resize`. With 1 the
# result differs by up to 22 grey levels, with 2 by up to 5 (mean 0.2).
REDUCTION_MARGIN = 2

# An image whose end is in doubt is decoded up to three times.
ATTEMPTS = 3

# For each EXIF orientation: the transposition that turns the image upright, and the indices of the
# stored image's sides (left, top, right, bottom) that become the upright image's sides, in order.
UPRIGHT = {
    1: (None, (0, 1, 2, 3)),
    2: (Image.Transpose.FLIP_LEFT_RIGHT, (2, 1, 0, 3)),
    3: (Image.Transpose.ROTATE_180, (2, 3, 0, 1)),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, (0, 3, 2, 1)),
    5: (Image.Transpose.TRANSPOSE, (1, 0, 3, 2)),
    6: (Image.Transpose.ROTATE_270, (3, 0, 1, 2)),
    7: (Image.Transpose.TRANSVERSE, (3, 2, 1, 0)),
    8: (Image.Transpose.ROTATE_90, (1, 2, 3, 0)),
}


def load(data: bytes, recipe: Recipe, limits: Limits = Limits()) -> Image.Image:  # noqa: B008
    """Decode an image, resize its shorter side bilinearly, and keep the centre.

    The file's header is compared with the limits before it is decoded. Only the pixels of the crop
    are converted, turned upright and resized.

    Returns:
        An RGB image of the size `crop`.

    Raises:
        ImageError: the format is not supported, the file is broken, or it exceeds the limits.
        Busy: other large images are being decoded.
    """
    least = REDUCTION_MARGIN * min(recipe.resize)
    return _decode(data, limits, least, lambda picture: picture.square(recipe))


def decode(data: bytes, limits: Limits = Limits()) -> Image.Image:  # noqa: B008
    """Decode a JPEG, PNG, WebP, BMP or GIF (its first frame) to an upright RGB image.

    Greyscale, palette, CMYK and 16-bit images are converted, transparent pixels are blended with
    white, and the EXIF orientation is applied.

    Raises:
        ImageError: the format is not supported, the file is broken, or it exceeds the limits.
        Busy: other large images are being decoded.
    """
    return _decode(data, limits, None, _Picture.whole)


class _Picture:
    """An image that is being decoded.

    Attributes:
        file: the image's file without metadata.
        least: the sides in pixels that a JPEG must keep if it is decoded at a reduced size.
        image: Pillow's image. It has the only reference to the pixels.
        size: width and height in pixels of `image`; the last pixel of a reduced one may be a part.
        cost: the estimated cost of decoding.
        may_repeat: whether the limits allow to decode it `ATTEMPTS` times.
    """

    def __init__(self, file: containers.Stripped, limits: Limits, least: int | None) -> None:
        self.file = file
        self.least = least
        if file.canvas:
            cost.check_size(file.canvas, limits)
            self.cost = cost.of_webp(file, file.canvas)
        else:
            self.image, self.size, full = self._open(file.data)
            cost.check_size(full, limits)
            self.cost = cost.of_opened(self.image, file, full)
        cost.check_cost(self.cost, limits)
        self.may_repeat = ATTEMPTS * self.cost.seconds <= limits.max_seconds

    def _open(self, data: bytes) -> tuple[ImageFile, tuple[float, float], tuple[int, int]]:
        """Open a file; return the image, its size, and the size in the file's header."""
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        full = image.size
        transparency.scale(image)
        smaller = image.draft(None, (self.least, self.least)) if self.least else None
        return image, (smaller[1][2:] if smaller else full), full

    def decode(self) -> None:
        """Decode the pixels.

        Raises:
            ImageError: a part of the picture is missing.
        """
        if self.file.canvas:
            self.image, self.size, _ = self._open(self.file.data)
        has_deep_transparency = transparency.is_deep(self.image)
        is_truncated = not self._try_to_load()
        if is_truncated:
            self._check_end(None)
        elif self.image.format == "JPEG" and self.may_repeat and file_end.ends_in_grey(self.image):
            self._check_end(file_end.digest(self.image))
        if has_deep_transparency:
            lower, _, _ = self._open(self.file.data)
            transparency.read_lower_bytes(lower)
            lower.load()
            transparency.apply_deep(self.image, lower)

    def _try_to_load(self) -> bool:
        """Decode the pixels, unless the file is truncated."""
        try:
            self.image.load()
        except OSError as error:
            if not ("truncated" in str(error) and self.may_repeat):  # Pillow has no other sign
                raise
            traceback.clear_frames(error.__traceback__)  # their variables refer to the pixels
            return False
        return True

    def _check_end(self, digest: int | None) -> None:
        """Check that bytes after the pixel data do not change the picture."""
        for tail in file_end.TAILS:
            self.close()
            self.image, _, _ = self._open(file_end.with_tail(self.file.data, tail))
            self.image.load()
            before, digest = digest, file_end.digest(self.image)
            if before not in (None, digest):
                raise ImageError("broken image: the file ends before the picture is complete")

    def decoded(self, convert: Callable[["_Picture"], Image.Image]) -> Image.Image:
        """Decode and convert the pixels, then free them."""
        try:
            self.decode()
            return convert(self)
        finally:
            self.close()

    def close(self) -> None:
        """Free the pixels."""
        vars(self).pop("image", None)

    def whole(self) -> Image.Image:
        """Return all pixels, upright, in RGB."""
        transpose, _ = UPRIGHT[self.file.orientation]
        image: Image.Image = self.image
        if not self._is_plain():
            image = conversion.to_rgb(image, (0, 0, *image.size))
        return image if transpose is None else image.transpose(transpose)

    def square(self, recipe: Recipe) -> Image.Image:
        """Return the pixels that a recipe keeps, upright, in RGB."""
        transpose, sides = UPRIGHT[self.file.orientation]
        image: Image.Image = self.image
        box = self._stored(sides, recipe)
        if not self._is_plain():
            image, box = self._converted(box, recipe)
        resized = resize(image, recipe.crop, box)
        return resized if transpose is None else resized.transpose(transpose)

    def _is_plain(self) -> bool:
        return self.image.mode == "RGB" and not self.image.has_transparency_data

    def _stored(self, sides: tuple[int, ...], recipe: Recipe) -> Box:
        """Compute the box that a recipe keeps, in the image as it is stored."""
        width, height = self.size
        is_turned = sides[0] % 2 == 1
        across, down = (height, width) if is_turned else (width, height)
        left, top, right, bottom = kept((0, 0, across, down), recipe)
        margins = dict(zip(sides, (left, top, across - right, down - bottom), strict=True))
        return margins[0], margins[1], width - margins[2], height - margins[3]

    def _converted(self, box: Box, recipe: Recipe) -> tuple[Image.Image, Box]:
        """Convert the part of the image that the filter reads to RGB, reduced if it is large."""
        least = REDUCTION_MARGIN * min(recipe.resize)
        factor = max(1, int(min(self.size)) // least)
        # A bilinear filter reads this many pixels beyond the box.
        margin = math.ceil(max(box[2] - box[0], box[3] - box[1]) / min(recipe.crop)) + factor
        left, top = (max(0, math.floor(side) - margin) for side in box[:2])
        right = min(self.image.width, math.ceil(box[2]) + margin)
        bottom = min(self.image.height, math.ceil(box[3]) + margin)
        image = conversion.to_rgb(self.image, (left, top, right, bottom), factor)
        moved = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
        return image, tuple(side / factor for side in moved)  # type: ignore[return-value]


def _decode(
    data: bytes,
    limits: Limits,
    least: int | None,
    convert: Callable[[_Picture], Image.Image],
) -> Image.Image:
    """Decode an image, convert it, and drop its pixels, so that their memory can be returned."""
    if len(data) > limits.max_bytes:
        raise ImageError(f"a file of {len(data)} bytes; the limit is {limits.max_bytes} bytes")
    with _decoding_errors(data):
        picture = _Picture(containers.strip(data), limits, least)
        if picture.cost.is_small():
            return picture.decoded(convert)
    with reserved(picture.cost.share(limits)), _decoding_errors(data):
        return picture.decoded(convert)


@contextmanager
def _decoding_errors(data: bytes) -> Iterator[None]:
    try:
        yield
    except (ImageError, Busy):
        raise
    except UnidentifiedImageError:
        raise ImageError(
            f"not an image ({len(data)} bytes); send {_list(FORMATS)}, in JSON as base64"
        ) from None
    except Exception as error:  # decoders raise almost any exception for broken files
        traceback.clear_frames(error.__traceback__)  # their variables refer to the pixels
        raise ImageError(f"broken image: {error}") from error


def _list(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def kept(box: Box, recipe: Recipe) -> Box:
    """Compute the part of a picture that a recipe keeps after resizing and cropping.

    The arithmetic follows the ONNX Model Zoo's imagenet_preprocess.py: the long side is rounded,
    and the crop starts at `width // 2 - crop // 2`. Resizing only this part differs by at most two
    grey levels from resizing the whole image.
    """
    left, top, right, bottom = box
    ratio = recipe.resize[0] / min(right - left, bottom - top)
    across = _kept_of_side(left, right, ratio, recipe.crop[1])
    down = _kept_of_side(top, bottom, ratio, recipe.crop[0])
    return across[0], down[0], across[1], down[1]


def _kept_of_side(start: float, end: float, ratio: float, crop: int) -> tuple[float, float]:
    """Compute where on the original side the centre crop of the resized side starts and ends."""
    resized = round((end - start) * ratio)
    scale = (end - start) / resized
    first = resized // 2 - crop // 2
    # A rounding error may put the result beyond the end.
    return start + first * scale, min(start + (first + crop) * scale, end)
