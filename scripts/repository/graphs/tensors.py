"""The first nodes of `NAME_pixels` in NumPy, for calibration and comparisons."""

from typing import Any

import numpy as np
import numpy.typing as npt

from scripts.repository.graphs.signature import Signature
from scripts.repository.steps.preprocess.recipe import Recipe

NUMPY_TYPES: dict[str, type[np.generic]] = {
    "FP32": np.float32,
    "FP16": np.float16,
    "FP64": np.float64,
    "UINT8": np.uint8,
}
Factors = npt.NDArray[np.float32]


def tensor(pixels: npt.NDArray[np.uint8], recipe: Recipe, signature: Signature) -> npt.NDArray[Any]:
    """Turn pixels, UINT8 [N, H, W, C], into the tensor that the graph of a file takes.

    It has the layout and the data type of `signature`, and the channel order, scale, mean and
    standard deviation of `recipe`.
    """
    images: npt.NDArray[Any] = pixels[..., ::-1] if recipe.colour == "bgr" else pixels
    if signature.input_type != "UINT8":
        scale, offset = factors(recipe)
        images = images.astype(np.float32) * scale + offset
    if signature.layout == "NCHW":
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images, NUMPY_TYPES[signature.input_type])


def factors(recipe: Recipe) -> tuple[Factors, Factors]:
    """Compute the scale and the offset, FP32 [C], that normalise pixel values from 0 to 255.

    They are in the channel order of the graph. `pixel * scale + offset` is
    `(low + (high - low) * pixel / 255 - mean) / std`.
    """
    low, high = recipe.pixel_range
    mean, std = np.array(recipe.mean), np.array(recipe.std)
    scale, offset = (
        np.broadcast_to(values, recipe.channels).astype(np.float32)
        for values in ((high - low) / (255 * std), (low - mean) / std)
    )
    return (scale[::-1], offset[::-1]) if recipe.colour == "bgr" else (scale, offset)


def is_normalized(recipe: Recipe) -> bool:
    """Tell whether the graph takes other values than those of the pixels, 0 to 255."""
    scale, offset = factors(recipe)
    return bool((scale != 1).any() or offset.any())
