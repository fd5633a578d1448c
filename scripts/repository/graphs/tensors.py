"""The first nodes of `NAME_pixels` in NumPy, for calibration and comparisons."""

from typing import Any

import numpy as np
import numpy.typing as npt

from scripts.repository.graphs.signature import Signature
from scripts.repository.steps.preprocess.recipe import Recipe


def tensor(pixels: npt.NDArray[np.uint8], recipe: Recipe, signature: Signature) -> npt.NDArray[Any]:
    """Turn pixels, UINT8 [N, H, W, C], into the tensor that the graph of a file takes.

    It has the layout and the data type of `signature`, and the channel order, scale, mean and
    standard deviation of `recipe`.
    """
    del signature
    low, high = recipe.pixel_range
    scaled = pixels * np.float32((high - low) / 255) + np.float32(low)
    normal = (scaled - np.array(recipe.mean, np.float32)) / np.array(recipe.std, np.float32)
    return np.ascontiguousarray(normal.transpose(0, 3, 1, 2), dtype=np.float32)
