"""Describes to the kernels in gpu_resize.cu how the pictures of a batch are made."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .geometry import UPRIGHT, Crop, crops, turned
from .recipe import Recipe, Size
from .resizing import SUPPORT

# As `Filter` in gpu_resize.cu.
FILTERS = {"box": 0, "bilinear": 1, "hamming": 2, "bicubic": 3, "lanczos": 4}
# As `Picture` in gpu_resize.cu.
PICTURE = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("source", "step_across", "step_down", "width", "height"),
            *("resized_width", "resized_height", "left", "top", "right", "bottom"),
            *("place_left", "place_top", "first_row", "rows", "taps_across", "taps_down"),
            *("across", "down", "between", "target", "target_step"),
        )
    ]
)
CHANNELS = 3  # of a source
ENTRY = 2  # integers before the weights of a row or column


@dataclass(frozen=True)
class Source:
    """A decoded image in the memory of the GPU, UINT8 in RGB.

    Attributes:
        address: of the first pixel.
        size: height and width as it is stored.
        steps: bytes from a pixel to the next row and to the next column.
        orientation: the EXIF orientation, 1 to 8.
    """

    address: int
    size: Size
    steps: tuple[int, int]
    orientation: int

    def upright(self) -> tuple[int, int, int]:
        """Return the address of the upright picture's first pixel, and the steps across and down.

        An upright picture is the stored one, read from another corner or column by column.
        """
        (height, width), (down, across) = self.size, self.steps
        # From the stored image's left, top, right and bottom side inwards.
        inwards = (across, down, -across, -down)
        starts = (0, 0, (width - 1) * across, (height - 1) * down)
        left, top, _, _ = UPRIGHT[self.orientation][1]
        return self.address + starts[left] + starts[top], inwards[left], inwards[top]


@dataclass(frozen=True)
class Plan:
    """The pictures of a batch, and the memory that making them takes.

    Attributes:
        pictures: one row of type `PICTURE` for each.
        weights: elements, INT32.
        between: bytes.
        columns, rows: the most that one of them keeps after the first pass.
        lines: the most rows that one of them keeps at the end.
    """

    pictures: npt.NDArray[Any]
    weights: int
    between: int
    columns: int
    rows: int
    lines: int


@dataclass(frozen=True)
class _Axis:
    """A side of a picture: its pixels before and after resizing, and those that are kept."""

    source: int
    resized: int
    first: int
    last: int

    @property
    def kept(self) -> int:
        return self.last - self.first

    def taps(self, support: float) -> int:
        """Return the most weights that a pixel has, as Pillow's precompute_coeffs does."""
        return math.ceil(support * max(1.0, self.source / self.resized)) * 2 + 1

    def weights(self, support: float) -> int:
        """Return the elements of all weights."""
        return self.kept * (ENTRY + self.taps(support))

    def reach(self, support: float) -> tuple[int, int]:
        """Return the first pixel that is read, and the one after the last."""
        scale = self.source / self.resized
        reach = support * max(1.0, scale)
        first = int((self.first + 0.5) * scale - reach + 0.5)
        last = int((self.last - 0.5) * scale + reach + 0.5)
        return max(0, first), min(last, self.source)


def plan(sources: Iterable[tuple[Source, int]], recipe: Recipe, count: int) -> Plan:
    """Plan the pictures of a batch.

    Args:
        sources: each image, and the index of its first picture in the result.
        recipe: what is made of an image.
        count: how many pictures are made of it, one of `recipe.CROPS`.
    """
    support = SUPPORT[recipe.interpolation]
    rows: list[tuple[int, ...]] = []
    weights = between = 0
    most = (0, 0, 0)
    for source, index in sources:
        size = turned(source.size, source.orientation)
        for place, crop in enumerate(crops(size, recipe, count), index):
            across, down = _axes(size, crop)
            first_row, last_row = down.reach(support)
            rows.append(
                (
                    *source.upright(),
                    *(across.source, down.source, across.resized, down.resized),
                    *crop.fit.kept,
                    *crop.fit.place,
                    *(first_row, last_row - first_row),
                    *(across.taps(support), down.taps(support)),
                    *(weights, weights + across.weights(support), between),
                    *_target(place, recipe, is_mirrored=crop.is_mirrored),
                )
            )
            weights += across.weights(support) + down.weights(support)
            between += (last_row - first_row) * across.kept * CHANNELS
            sides = (across.kept, last_row - first_row, down.kept)
            most = tuple(map(max, most, sides))  # type: ignore[assignment] # three again
    return Plan(np.array(rows, PICTURE), weights, between, *most)


def _axes(size: Size, crop: Crop) -> tuple[_Axis, _Axis]:
    left, top, right, bottom = crop.fit.kept
    height, width = crop.fit.resized
    return _Axis(size[1], width, left, right), _Axis(size[0], height, top, bottom)


def _target(place: int, recipe: Recipe, *, is_mirrored: bool) -> tuple[int, int]:
    """Return where the picture's first pixel goes, and the step to the next; both in bytes."""
    height, width = recipe.crop
    first = place * height * width * recipe.channels
    if is_mirrored:
        return first + (width - 1) * recipe.channels, -recipe.channels
    return first, recipe.channels
