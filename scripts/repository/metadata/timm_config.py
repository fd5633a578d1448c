"""Reads what timm writes: config.json with `pretrained_cfg`, or the `pretrained_cfg` itself."""

import math
from collections.abc import Mapping
from typing import Any

from scripts.repository import labels
from scripts.repository.description import Description
from scripts.repository.metadata.fields import refused, whole
from scripts.repository.steps.preprocess.recipe import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INTERPOLATIONS,
    Recipe,
    Size,
    written,
)

# timm.data.constants.DEFAULT_CROP_PCT
CROP_PCT = 0.875
MODES = {"squash": "squash", "border": "letterbox"}


def is_timm(config: Mapping[str, Any]) -> bool:
    """Tell whether a JSON object is timm's: of a model, or only of its preprocessing."""
    return "pretrained_cfg" in config or ("input_size" in config and "crop_pct" in config)


def describe(
    config: Mapping[str, Any], origin: str, *, size: Size | None = None, preprocessing: bool = True
) -> Description:
    """Read labels and preprocessing.

    Args:
        config: as `timm.models.save_for_hf` writes it, or a `pretrained_cfg`.
        origin: the file's name.
        size: height and width that the graph takes, if they are fixed.
        preprocessing: whether the preprocessing is wanted.

    Raises:
        BuildError: the preprocessing cannot be said in a recipe.
    """
    pretrained = config.get("pretrained_cfg") or config
    origin, fields = recipe(pretrained, origin, size) if preprocessing else (origin, {})
    return Description(origin, fields, _labels(config, pretrained, origin))


def recipe(
    config: Mapping[str, Any], origin: str, size: Size | None = None
) -> tuple[str, dict[str, Any]]:
    """Derive the recipe as timm's `resolve_data_config` and `transforms_imagenet_eval` do.

    A graph of another size than `input_size` gets `test_crop_pct` if it has `test_input_size`, and
    otherwise the same `crop_pct`.

    Returns:
        The origin, which says so, and the fields of the recipe.

    Raises:
        BuildError: a value is of the wrong type, or a recipe cannot say it.
    """
    try:
        channels, *sides = config.get("input_size") or (3, 224, 224)
        crop, test = _pair(sides), _pair((config.get("test_input_size") or (0, 0, 0))[1:])
        crop_pct = config.get("crop_pct") or CROP_PCT
        if size and size != crop:
            origin = f"{origin}, for {written(size)} instead of {written(crop)}"
            crop_pct = (size == test and config.get("test_crop_pct")) or crop_pct
            crop = size
        return origin, whole(_recipe(config, channels, crop, crop_pct))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise refused(origin, f"cannot use it: {error}") from error


def _recipe(config: Mapping[str, Any], channels: int, crop: Size, crop_pct: float) -> Recipe:
    resize = (math.floor(crop[0] / crop_pct), math.floor(crop[1] / crop_pct))
    mode = MODES.get(config.get("crop_mode") or "center", "shorter")
    interpolation = config.get("interpolation") or "bicubic"
    if mode == "shorter" and resize[0] != resize[1]:
        interpolation = "bilinear"  # as ResizeKeepRatio does, which does not get the configured one
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation is {interpolation!r}")
    if channels not in {1, 3}:
        raise ValueError(f"input_size has {channels} channels")
    mean = tuple(map(float, config.get("mean") or IMAGENET_MEAN))
    fill = tuple(round(255 * value) for value in mean) if mode == "letterbox" else (0, 0, 0)
    return Recipe(
        resize=resize,
        crop=crop,
        mode=mode,
        rounding="torchvision",
        interpolation=interpolation,
        fill=_triple(fill),
        colour="grey" if channels == 1 else "rgb",
        mean=mean,
        std=tuple(map(float, config.get("std") or IMAGENET_STD)),
    )


def _labels(
    config: Mapping[str, Any], pretrained: Mapping[str, Any], origin: str
) -> tuple[str, ...] | None:
    names = config.get("label_names") or pretrained.get("label_names")
    if not names:
        return None
    said = config.get("label_descriptions") or pretrained.get("label_descriptions") or {}
    if isinstance(said, Mapping) and isinstance(names, list):
        names = [said.get(str(name)) or name for name in names]
    return labels.from_value(names, origin)


def _pair(sides: Any) -> Size:  # noqa: ANN401
    height, width = sides
    return int(height), int(width)


def _triple(values: tuple[int, ...]) -> tuple[int, int, int]:
    red, green, blue = values if len(values) == 3 else values[:1] * 3  # noqa: PLR2004
    return red, green, blue
