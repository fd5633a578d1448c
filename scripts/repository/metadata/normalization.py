"""Reads mean and standard deviation on either of the scales that people give them on."""

import logging
import math
from collections.abc import Sequence

from scripts.repository.errors import BuildError
from scripts.repository.steps.preprocess.recipe import Channels

logger = logging.getLogger(__name__)


def mean_and_std(
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    *,
    pixel_range: Sequence[float] | None = None,
) -> dict[str, Channels]:
    """Return those of mean and std that are given, as a recipe takes them.

    Values above 1 for pixels in 0..1 belong to pixels in 0..255, which mmpretrain, PaddleClas,
    OpenVINO and Caffe use: they are divided by 255, with a warning. There, a std of 1 divides by
    nothing. Values for another `pixel_range` are returned as they are.

    Raises:
        BuildError: only one of mean and std is for pixels in 0..255, or a value is not finite.
    """
    given = {"mean": mean, "std": std}
    values = {name: tuple(map(float, each)) for name, each in given.items() if each is not None}
    for name, each in values.items():
        if not all(map(math.isfinite, each)):
            raise BuildError(f"{name} is {_written(each)}; give finite numbers")
    if tuple(pixel_range or (0, 1)) != (0, 1):
        return values
    large = {name for name, each in values.items() if max(map(abs, each)) > 1}
    if not large:
        return values
    for name, each in values.items():
        if name not in large and not _fits_both_scales(name, each):
            other = next(iter(large))
            raise BuildError(
                f"{name} {_written(each)} is for pixels in 0..1, but {other} "
                f"{_written(values[other])} for 0..255; give {other} "
                f"{_written(_scaled(values[other]))}"
            )
    scaled = {name: _scaled(each) for name, each in values.items()}
    for name, each in scaled.items():
        logger.warning(
            "%s %s is read as that of pixels in 0..255; for 0..1 it is %s",
            name,
            _written(values[name]),
            _written(each),
        )
    return scaled


def _fits_both_scales(name: str, values: Channels) -> bool:
    return set(values) == ({0.0} if name == "mean" else {1.0})


def _scaled(values: Channels) -> Channels:
    return tuple(value / 255 for value in values)


def _written(values: Channels) -> str:
    return " ".join(f"{value:.6g}" for value in values)
