"""Where a picture goes: its size after resizing, the part that is kept, and turned images.

Functions of sizes only. A size is (height, width); a box is (left, top, right, bottom), in pixels.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

from PIL.Image import Transpose

from .recipe import Recipe, Size, is_square

Box = tuple[float, float, float, float]  # as in Pillow
Area = tuple[int, int, int, int]  # a box of whole pixels

Number = TypeVar("Number", int, float)

# For each EXIF orientation: the transposition that turns the image upright, and the indices of the
# stored image's sides (left, top, right, bottom) that become the upright image's sides, in order.
UPRIGHT = {
    1: (None, (0, 1, 2, 3)),
    2: (Transpose.FLIP_LEFT_RIGHT, (2, 1, 0, 3)),
    3: (Transpose.ROTATE_180, (2, 3, 0, 1)),
    4: (Transpose.FLIP_TOP_BOTTOM, (0, 3, 2, 1)),
    5: (Transpose.TRANSPOSE, (1, 0, 3, 2)),
    6: (Transpose.ROTATE_270, (3, 0, 1, 2)),
    7: (Transpose.TRANSVERSE, (3, 2, 1, 0)),
    8: (Transpose.ROTATE_90, (1, 2, 3, 0)),
}


@dataclass(frozen=True)
class Fit:
    """How a picture becomes what a recipe keeps of it.

    Attributes:
        resized: the size of the whole picture after resizing.
        kept: the part of the resized picture that lies in the crop.
        place: left and top of that part in the crop; above 0 where the crop is padded.
    """

    resized: Size
    kept: Area
    place: tuple[int, int]

    @property
    def kept_size(self) -> Size:
        """Height and width of the part that is kept."""
        left, top, right, bottom = self.kept
        return bottom - top, right - left

    def source(self, size: tuple[float, float]) -> Box:
        """Return the part that is kept, in pixels of the upright picture of this size."""
        down, across = (side / resized for side, resized in zip(size, self.resized, strict=True))
        left, top, right, bottom = self.kept
        # A rounding error may put the result beyond the end.
        return left * across, top * down, min(right * across, size[1]), min(bottom * down, size[0])


@dataclass(frozen=True)
class Crop:
    """A crop of a picture: how the picture becomes it, and whether it is mirrored afterwards."""

    fit: Fit
    is_mirrored: bool = False


@lru_cache(maxsize=64)  # the cost of a batch is estimated before its pictures are made
def fit(size: Size, recipe: Recipe) -> Fit:
    """Compute how an upright picture of this size is resized and cropped.

    The arithmetic of each `Recipe.rounding` is that of the ONNX Model Zoo's imagenet_preprocess.py,
    of torchvision's Resize and CenterCrop and timm's ResizeKeepRatio and CenterCropOrPad, or of
    transformers' `get_resize_output_image_size` and `center_crop`.
    """
    resized = _resized(size, recipe)
    across = _kept(resized[1], recipe.crop[1], recipe.rounding)
    down = _kept(resized[0], recipe.crop[0], recipe.rounding)
    return Fit(resized, (across[0], down[0], across[1], down[1]), (across[2], down[2]))


def crops(size: Size, recipe: Recipe, count: int) -> tuple[Crop, ...]:
    """Compute one of `recipe.CROPS` for an upright picture of this size.

    One is the centre. Ten are those of torchvision's TenCrop, in its order: top left, top right,
    bottom left, bottom right, the centre, and the same five of the mirrored picture. The centre of
    the mirrored picture can lie a pixel beside the mirrored centre.
    """
    centre = fit(size, recipe)
    if count == 1:
        return (Crop(centre),)
    height, width = centre.resized
    tall, wide = recipe.crop
    corners = [(left, top) for top in (0, height - tall) for left in (0, width - wide)]
    areas = [*((left, top, left + wide, top + tall) for left, top in corners), centre.kept]
    of_mirrored = [(width - right, top, width - left, bottom) for left, top, right, bottom in areas]
    return (
        *(Crop(replace(centre, kept=area)) for area in areas),
        *(Crop(replace(centre, kept=area), is_mirrored=True) for area in of_mirrored),
    )


def fits(wanted: Iterable[Crop]) -> list[Fit]:
    """List what crops are made from; a crop and the mirror image of it are made from one."""
    return list(dict.fromkeys(crop.fit for crop in wanted))


def enclosing(areas: Iterable[Area]) -> Area:
    """Return the smallest area that has some areas in it."""
    lefts, tops, rights, bottoms = zip(*areas, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def scale(size: tuple[float, float], recipe: Recipe) -> float:
    """Return how many pixels of a picture become one; of a squashed one, in the direction of fewer.

    `shorter` covers both sides of `Recipe.resize`, and `letterbox` fits into them.
    """
    sides = [side / target for side, target in zip(size, recipe.resize, strict=True)]
    return max(sides) if recipe.mode == "letterbox" else min(sides)


def _resized(size: Size, recipe: Recipe) -> Size:
    if recipe.mode == "squash":
        return recipe.resize
    if recipe.mode == "shorter" and is_square(recipe.resize) and recipe.rounding != "zoo":
        shorter = recipe.resize[0]
        height, width = (int(shorter * side / min(size)) for side in size)
        return height, width
    if recipe.rounding == "zoo":
        factors = [target / side for side, target in zip(size, recipe.resize, strict=True)]
        factor = min(factors) if recipe.mode == "letterbox" else max(factors)
        height, width = (max(1, round(factor * side)) for side in size)
    else:
        pixels = scale(size, recipe)
        height, width = (max(1, round(side / pixels)) for side in size)
    return height, width


def _kept(resized: int, crop: int, rounding: str) -> tuple[int, int, int]:
    """Return the first and the last pixel of a side that are kept, and the place of the first."""
    if rounding == "zoo":
        first = resized // 2 - crop // 2
    elif rounding == "transformers":
        first = (resized - crop) // 2
    elif resized >= crop:
        first = round((resized - crop) / 2)
    else:
        first = -((crop - resized) // 2)
    return max(0, first), min(first + crop, resized), max(0, -first)


def is_turned(orientation: int) -> bool:
    """Tell whether an EXIF orientation exchanges height and width."""
    return UPRIGHT[orientation][1][0] % 2 == 1


def turned(size: tuple[Number, Number], orientation: int) -> tuple[Number, Number]:
    """Return the upright size of a stored image, or the stored size of an upright one."""
    return (size[1], size[0]) if is_turned(orientation) else size


def stored(box: Box, size: tuple[float, float], orientation: int) -> Box:
    """Find a box of the upright picture in the image of this size, as it is stored."""
    height, width = size
    down, across = turned(size, orientation)
    left, top, right, bottom = box
    sides = UPRIGHT[orientation][1]
    margins = dict(zip(sides, (left, top, across - right, down - bottom), strict=True))
    return margins[0], margins[1], width - margins[2], height - margins[3]


def around(box: Box, margins: tuple[int, int], size: Size) -> Area:
    """Return the pixels of a box and `margins` (across, down) around it, in an image of a size."""
    return (
        max(0, math.floor(box[0]) - margins[0]),
        max(0, math.floor(box[1]) - margins[1]),
        min(size[1], math.ceil(box[2]) + margins[0]),
        min(size[0], math.ceil(box[3]) + margins[1]),
    )
