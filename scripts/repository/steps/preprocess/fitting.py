"""Makes the picture that a recipe asks for from a decoded image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from PIL.Image import Transpose

from . import conversion, geometry, resizing
from .geometry import UPRIGHT, Crop, Fit
from .interpolation import without_antialias
from .recipe import Recipe, Size
from .resizing import SUPPORT, Resize

# An image is decoded or converted at a fraction of its size if both sides stay at least this many
# times the size to which it is resized. The mean difference from exact decoding is then at most
# twice that without reduction for photographs; a box does not smooth the borders of reduced pixels
# and needs more of them. `python -m tests.fast_and_exact` measures it.
REDUCTION_MARGIN, BOX_REDUCTION_MARGIN = 2, 4


@dataclass(frozen=True)
class Decoded:
    """A decoded image as it is stored.

    Attributes:
        image: the pixels, in any mode.
        size: height and width in pixels; the last pixel of a reduced image may be a part.
        full: height and width in the file.
        orientation: the EXIF orientation, 1 to 8.
    """

    image: Image.Image
    size: tuple[float, float]
    full: Size
    orientation: int = 1

    def crops(self, recipe: Recipe, count: int) -> tuple[Crop, ...]:
        """Compute how the upright picture is resized and cropped."""
        return geometry.crops(geometry.turned(self.full, self.orientation), recipe, count)

    def is_plain(self) -> bool:
        """Tell whether no pixel has to be converted."""
        return self.image.mode == "RGB" and not self.image.has_transparency_data

    def rgb(self, area: geometry.Area) -> Image.Image:
        """Return the pixels of a stored area in RGB."""
        if not self.is_plain():
            return conversion.to_rgb(self.image, area)
        is_whole = area == (0, 0, *self.image.size)
        return self.image if is_whole else self.image.crop(area)

    def upright(self, image: Image.Image) -> Image.Image:
        """Turn a part of the image upright."""
        transpose, _ = UPRIGHT[self.orientation]
        return image if transpose is None else image.transpose(transpose)


def is_approximate(recipe: Recipe) -> bool:
    """Tell whether a picture may be made from a reduced image and in other steps.

    A filter that reads single pixels would make another picture of a reduced image, which has means
    of them.
    """
    averages = recipe.antialias and recipe.interpolation != "nearest"
    return recipe.decoding == "fast" and averages


def is_whole(recipe: Recipe) -> bool:
    """Tell whether a picture that is not approximate is resized as a whole by Pillow."""
    return recipe.antialias or recipe.interpolation == "nearest"


def reduction(size: tuple[float, float], recipe: Recipe) -> int:
    """Return by how much an image of this upright size may be reduced when it is decoded."""
    return _factor(geometry.scale(size, recipe), recipe) if is_approximate(recipe) else 1


def reductions(size: tuple[float, float], fit: Fit, recipe: Recipe) -> tuple[int, int]:
    """Return by how much an upright image may be reduced when it is converted: across and down."""
    down, across = (side / resized for side, resized in zip(size, fit.resized, strict=True))
    return _factor(across, recipe), _factor(down, recipe)


def _factor(scale: float, recipe: Recipe) -> int:
    margin = BOX_REDUCTION_MARGIN if recipe.interpolation == "box" else REDUCTION_MARGIN
    return max(1, int(scale / margin))


def picture(decoded: Decoded, recipe: Recipe, resize: Resize = resizing.resize) -> Image.Image:
    """Make the picture of the centre as `Recipe.decoding` says; `resize` is for `fast`.

    Returns:
        An image of the size `Recipe.crop`, RGB or, if the recipe's colour is grey, L.
    """
    return pictures(decoded, recipe, 1, resize)[0]


def pictures(
    decoded: Decoded, recipe: Recipe, crops: int, resize: Resize = resizing.resize
) -> list[Image.Image]:
    """Make a picture, as `picture` does, of each of the `geometry.crops`."""
    wanted = decoded.crops(recipe, crops)
    fits = geometry.fits(wanted)
    if is_approximate(recipe):
        # One after the other, since a resized panorama could take much more than its parts.
        made = [_quick(decoded, fit, recipe, resize) for fit in fits]
    else:
        made = _exact(decoded, fits, recipe)
    by_fit = dict(zip(fits, made, strict=True))
    return [
        by_fit[crop.fit].transpose(Transpose.FLIP_LEFT_RIGHT)
        if crop.is_mirrored
        else by_fit[crop.fit]
        for crop in wanted
    ]


def _quick(decoded: Decoded, wanted: Fit, recipe: Recipe, resize: Resize) -> Image.Image:
    """Convert, resize and turn only the part that is kept; convert it to grey last."""
    box = wanted.source(geometry.turned(decoded.size, decoded.orientation))
    box = geometry.stored(box, decoded.size, decoded.orientation)
    size = geometry.turned(wanted.kept_size, decoded.orientation)
    image: Image.Image = decoded.image
    if not decoded.is_plain():
        factors = reductions(geometry.turned(decoded.size, decoded.orientation), wanted, recipe)
        factors = geometry.turned(factors, decoded.orientation)
        image, box = _converted(decoded, factors, box, size, SUPPORT[recipe.interpolation])
    kept = decoded.upright(resize(image, size, box, recipe.interpolation))
    padded = _padded(kept, wanted, recipe)
    return padded.convert("L") if recipe.colour == "grey" else padded


def _exact(decoded: Decoded, wanted: Sequence[Fit], recipe: Recipe) -> list[Image.Image]:
    """Convert all pixels, also to grey, turn them upright and resize them, in bands; then crop."""
    height, width = geometry.turned(decoded.full, decoded.orientation)
    mode = "L" if recipe.colour == "grey" else "RGB"

    def rows(top: int, bottom: int) -> Image.Image:
        box = geometry.stored((0, top, width, bottom), decoded.full, decoded.orientation)
        area = geometry.around(box, (0, 0), decoded.full)
        band = decoded.upright(decoded.rgb(area))
        return band if mode == "RGB" else band.convert(mode)

    source = resizing.Source((height, width), mode, rows)
    if is_whole(recipe):
        kept = resizing.whole(source, wanted, recipe.interpolation)
    else:
        kept = [without_antialias(source, fit, recipe.interpolation) for fit in wanted]
    return [_padded(part, fit, recipe) for part, fit in zip(kept, wanted, strict=True)]


def whole(decoded: Decoded) -> Image.Image:
    """Return all pixels, upright, in RGB."""
    return decoded.upright(decoded.rgb((0, 0, *decoded.image.size)))


def _padded(kept: Image.Image, wanted: Fit, recipe: Recipe) -> Image.Image:
    """Put what is kept on a picture of `Recipe.fill`, unless it fills the crop."""
    if wanted.kept_size == recipe.crop:
        return kept
    canvas = Image.new("RGB", recipe.crop[::-1], recipe.fill).convert(kept.mode)
    canvas.paste(kept, wanted.place)
    return canvas


def _converted(
    decoded: Decoded,
    factors: tuple[int, int],
    box: geometry.Box,
    size: Size,
    support: float,
) -> tuple[Image.Image, geometry.Box]:
    """Convert the part of the image that the filter reads to RGB, reduced if it is large."""
    scales = (box[2] - box[0]) / size[1], (box[3] - box[1]) / size[0]
    across, down = (
        math.ceil(support * max(1, scale)) + factor
        for scale, factor in zip(scales, factors, strict=True)
    )
    area = geometry.around(box, (across, down), decoded.image.size[::-1])
    left, top, _, _ = area
    image = conversion.to_rgb(decoded.image, area, factors)
    across, down = factors
    return image, (
        (box[0] - left) / across,
        (box[1] - top) / down,
        (box[2] - left) / across,
        (box[3] - top) / down,
    )
