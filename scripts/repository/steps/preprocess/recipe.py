"""Recipes: how an image becomes the tensor that a classifier was trained with."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

Size = tuple[int, int]  # height, width in pixels
Channels = tuple[float, ...]  # red, green, blue; or grey

# Mean and standard deviation of ImageNet's training set for pixel values in 0..1, from the ONNX
# Model Zoo's vision/classification/imagenet_preprocess.py.
IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)

# How an image of other proportions gets the size `resize`: it covers it; it is distorted; or it is
# padded to it. If both sides of `resize` are equal, `shorter` resizes the shorter side to it.
RESIZE_MODES = ("shorter", "squash", "letterbox")
# Whose arithmetic decides about half pixels: of the ONNX Model Zoo, of torchvision and timm, or of
# Hugging Face's transformers.
ROUNDINGS = ("zoo", "torchvision", "transformers")
# As Pillow defines them; `opencv` is OpenCV's INTER_LINEAR, whose integers truncate grey levels.
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "opencv")
# Filters that exist without antialiasing, too, and one that exists only without it.
PLAIN_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "opencv")
COLOURS = ("rgb", "bgr", "grey")
# `exact` computes what the reference computes, pixel by pixel. `fast` decodes large images at a
# reduced size, resizes only what the crop keeps, and uses SIMD instructions.
DECODINGS = ("exact", "fast")
# How many crops of an image are classified: its centre; or that, the four corners and the mirror
# images of these five.
CROPS = (1, 10)
MAX_SIDE = 4096  # of `resize` and `crop` in pixels; no classifier takes more


@dataclass(frozen=True)
class Recipe:
    """One preprocessing variant.

    The preprocessing step computes UINT8 pixels [height, width, channels]; the rest is the first
    nodes of the graph.

    Attributes:
        resize: height and width to which an image is resized, as `mode` says.
        crop: height and width of the centre that is kept, which is what the graph takes.
        mode: one of `RESIZE_MODES`.
        rounding: one of `ROUNDINGS`.
        interpolation: one of `INTERPOLATIONS`.
        antialias: whether the filter covers more source pixels when an image gets smaller.
        fill: grey level, 0 to 255, of each colour channel (red, green, blue) around a letterboxed
            image.
        colour: one of `COLOURS`; the order of the channels that the graph takes.
        decoding: one of `DECODINGS`.
        pixel_range: the values of black and white, to which pixels are scaled linearly.
        mean: what is subtracted from the scaled values: one value for all channels, or one for
            each in the order red, green, blue.
        std: what the result is divided by, in the same form.

    Raises:
        ValueError: the values are invalid or do not fit together.
    """

    resize: Size = (256, 256)
    crop: Size = (224, 224)
    mode: str = "shorter"
    rounding: str = "zoo"
    interpolation: str = "bilinear"
    antialias: bool = True
    fill: tuple[int, int, int] = (0, 0, 0)
    colour: str = "rgb"
    decoding: str = "fast"
    pixel_range: tuple[float, float] = (0.0, 1.0)
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_fill(self)
        _check_sizes(self)
        _check_normalization(self)

    @property
    def channels(self) -> int:
        """The number of channels, 1 for grey."""
        return 1 if self.colour == "grey" else 3

    def to_json(self) -> str:
        """Write the recipe as the value of the step's `recipe` parameter."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Read the output of `to_json`, also that of releases before 0.4, with square sizes."""
        fields = json.loads(text)
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        sides = {name: (side, side) for name, side in fields.items() if type(side) is int}
        return cls(**{**fields, **lists, **sides})


def square(resize: int, crop: int, **fields: Any) -> Recipe:  # noqa: ANN401 - those of Recipe
    """Make a recipe that resizes the shorter side and keeps a square."""
    return Recipe((resize, resize), (crop, crop), **fields)


def check_crops(recipe: Recipe, crops: int) -> None:
    """Check that several crops of an image would not all be the same.

    Raises:
        ValueError: they would, or some would be padding.
    """
    if crops == 1:
        return
    if recipe.mode == "letterbox":
        raise ValueError(
            f"{crops} crops are for pictures that are larger than the crop, not for the mode "
            "letterbox, which pads them"
        )
    if recipe.mode == "squash" and recipe.resize == recipe.crop:
        raise ValueError(
            f"{crops} crops would be equal but for mirror images, since every picture is squashed "
            f"to the crop's {written(recipe.crop)} pixels"
        )


def _check_choices(recipe: Recipe) -> None:
    for name, choices in (
        ("mode", RESIZE_MODES),
        ("rounding", ROUNDINGS),
        ("interpolation", INTERPOLATIONS),
        ("colour", COLOURS),
        ("decoding", DECODINGS),
    ):
        if getattr(recipe, name) not in choices:
            raise ValueError(
                f"{name} is {getattr(recipe, name)!r}; it must be one of {', '.join(choices)}"
            )
    if not recipe.antialias and recipe.interpolation not in PLAIN_INTERPOLATIONS:
        raise ValueError(
            f"{recipe.interpolation} exists only with antialiasing; "
            f"without it, choose from {', '.join(PLAIN_INTERPOLATIONS)}"
        )
    if recipe.antialias and recipe.interpolation == "opencv":
        raise ValueError("opencv exists only without antialiasing")


def _check_fill(recipe: Recipe) -> None:
    if len(recipe.fill) != 3 or not all(0 <= level <= 255 for level in recipe.fill):  # noqa: PLR2004
        raise ValueError(f"fill must be three grey levels from 0 to 255, not {recipe.fill}")


def _check_sizes(recipe: Recipe) -> None:
    for name, size in (("crop", recipe.crop), ("resize", recipe.resize)):
        if not 1 <= min(size) <= max(size) <= MAX_SIDE:
            raise ValueError(
                f"a {name} of {written(size)} pixels is impossible; give sides from 1 to {MAX_SIDE}"
            )
    is_padded = recipe.mode == "letterbox"
    if any(recipe.fill) and not is_padded:
        raise ValueError(f"fill is for the mode letterbox, not {recipe.mode}; leave it out")
    if not is_padded and any(
        side < crop for side, crop in zip(recipe.resize, recipe.crop, strict=True)
    ):
        raise ValueError(
            f"a crop of {written(recipe.crop)} pixels does not fit an image resized to "
            f"{written(recipe.resize)}; resize to at least {written(recipe.crop)}"
        )


def _check_normalization(recipe: Recipe) -> None:
    for name in ("mean", "std"):
        count = len(getattr(recipe, name))
        if count not in {1, recipe.channels}:
            wanted = "1" if recipe.channels == 1 else f"1, or {recipe.channels}"
            raise ValueError(
                f"{name} has {count} values; a recipe for {recipe.colour} takes {wanted}"
            )
    for name in ("pixel_range", "mean", "std"):
        values = getattr(recipe, name)
        if not all(map(math.isfinite, values)):
            raise ValueError(f"{name} must be finite, not {_numbers(values)}")
    if min(recipe.std) <= 0:
        raise ValueError(f"std must be positive, not {_numbers(recipe.std)}")
    if recipe.pixel_range[0] >= recipe.pixel_range[1]:
        raise ValueError(
            f"the value of white must be above that of black, not {_numbers(recipe.pixel_range)}"
        )


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def is_square(size: Size) -> bool:
    """Tell whether both sides are equal."""
    return size[0] == size[1]


def written(size: Size) -> str:
    """Write a size: 224, or 224x192 (height x width) if the sides differ."""
    height, width = size
    return str(height) if is_square(size) else f"{height}x{width}"
