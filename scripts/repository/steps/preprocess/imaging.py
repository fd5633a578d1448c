"""Decodes image files into the pixels that a recipe asks for."""

import io
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from . import containers, cost, file_end, fitting, geometry, transparency
from .errors import Busy, ImageError
from .geometry import Number
from .limits import Limits
from .recipe import Recipe, Size
from .sharing import reserved

__all__ = ["Busy", "ImageError", "decode", "load", "load_crops"]

# Untrusted bytes reach only these decoders; Pillow has about forty more.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

# Pillow's own limit is turned off, since it only warns at first.
Image.MAX_IMAGE_PIXELS = None

# An image whose end is in doubt is decoded up to three times.
ATTEMPTS = 3


def load(data: bytes, recipe: Recipe, limits: Limits = Limits()) -> Image.Image:  # noqa: B008
    """Decode an image and make the picture that a recipe asks for.

    The file's header is compared with the limits before it is decoded. With `fast` decoding only
    the pixels of the crop are converted, turned upright and resized.

    Returns:
        An image of the size `crop`: RGB, or L if the recipe's colour is grey.

    Raises:
        ImageError: the format is not supported, the file is broken, or it exceeds the limits.
        Busy: other large images are being decoded.
    """
    return load_crops(data, recipe, 1, limits)[0]


def load_crops(
    data: bytes,
    recipe: Recipe,
    crops: int,
    limits: Limits = Limits(),  # noqa: B008
) -> list[Image.Image]:
    """Decode an image once and make the picture of each crop, in the order of `geometry.crops`.

    `crops` is one of `recipe.CROPS`. The pictures, and what is raised, are those of `load`.
    """
    return _decode(data, limits, recipe, crops)


def decode(data: bytes, limits: Limits = Limits()) -> Image.Image:  # noqa: B008
    """Decode a JPEG, PNG, WebP, BMP or GIF (its first frame) to an upright RGB image.

    Greyscale, palette, CMYK and 16-bit images are converted, transparent pixels are blended with
    white, and the EXIF orientation is applied.

    Raises:
        ImageError: the format is not supported, the file is broken, or it exceeds the limits.
        Busy: other large images are being decoded.
    """
    return _decode(data, limits, None)[0]


class _Picture:
    """An image that is being decoded.

    Attributes:
        file: the image's file without metadata.
        recipe: what is made of it; None for the whole picture.
        crops: how many pictures are made of it.
        image: Pillow's image. It has the only reference to the pixels.
        full: height and width in the file.
        size: height and width in pixels of `image`; the last pixel of a reduced one may be a part.
        cost: the estimated cost of decoding.
        may_repeat: whether the limits allow to decode it `ATTEMPTS` times.
    """

    full: Size
    size: tuple[float, float]

    def __init__(
        self, file: containers.Stripped, limits: Limits, recipe: Recipe | None, crops: int
    ) -> None:
        self.file = file
        self.recipe = recipe
        self.crops = crops
        if file.canvas:
            self.size = self.full = file.canvas[::-1]
            cost.check_size(self.full, limits)
            self.cost = cost.of_webp(file, self.full)
        else:
            self.image = self._open(file.data)
            cost.check_size(self.full, limits)
            self.cost = cost.of_opened(self.image, file, self.full)
        if recipe:
            sizes = self._upright(self.full), self._upright(self.size)
            self.cost = self.cost.then(cost.of_fitting(*sizes, recipe, crops))
        cost.check_cost(self.cost, limits)
        self.may_repeat = ATTEMPTS * self.cost.seconds <= limits.max_seconds

    def _open(self, data: bytes) -> ImageFile:
        """Open a file, and let a JPEG be decoded at a reduced size if the recipe allows it."""
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        transparency.scale(image)
        self.size = self.full = image.height, image.width
        if self.recipe and (factor := fitting.reduction(self._upright(self.full), self.recipe)) > 1:
            width, height = (max(1, side // factor) for side in image.size)
            if reduced := image.draft(None, (width, height)):
                self.size = reduced[1][3], reduced[1][2]
        return image

    def _upright(self, size: tuple[Number, Number]) -> tuple[Number, Number]:
        return geometry.turned(size, self.file.orientation)

    def decode(self) -> None:
        """Decode the pixels.

        Raises:
            ImageError: a part of the picture is missing.
        """
        if self.file.canvas:
            self.image = self._open(self.file.data)
        has_deep_transparency = transparency.is_deep(self.image)
        is_truncated = not self._try_to_load()
        if is_truncated:
            self._check_end(None)
        elif self.image.format == "JPEG" and self.may_repeat and file_end.ends_in_grey(self.image):
            self._check_end(file_end.digest(self.image))
        if has_deep_transparency:
            lower = self._open(self.file.data)
            transparency.read_lower_bytes(lower)
            lower.load()
            transparency.apply_deep(self.image, lower)
        transparency.ignore_unused_alpha(self.image)

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
            self.image = self._open(file_end.with_tail(self.file.data, tail))
            self.image.load()
            before, digest = digest, file_end.digest(self.image)
            if before not in (None, digest):
                raise ImageError("broken image: the file ends before the picture is complete")

    def result(self) -> list[Image.Image]:
        """Decode the pixels, make the pictures of them, and free them."""
        try:
            self.decode()
            decoded = fitting.Decoded(self.image, self.size, self.full, self.file.orientation)
            if self.recipe:
                return fitting.pictures(decoded, self.recipe, self.crops)
            return [fitting.whole(decoded)]
        finally:
            self.close()

    def close(self) -> None:
        """Free the pixels."""
        vars(self).pop("image", None)


def _decode(
    data: bytes, limits: Limits, recipe: Recipe | None, crops: int = 1
) -> list[Image.Image]:
    """Decode an image, and drop its pixels, so that their memory can be returned."""
    if len(data) > limits.max_bytes:
        raise ImageError(f"a file of {len(data)} bytes; the limit is {limits.max_bytes} bytes")
    with _decoding_errors(data):
        picture = _Picture(containers.strip(data), limits, recipe, crops)
        if picture.cost.is_small():
            return picture.result()
    with reserved(picture.cost.share(limits)), _decoding_errors(data):
        return picture.result()


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
