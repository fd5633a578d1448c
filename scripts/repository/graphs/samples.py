"""Images on which graphs are tested and compared."""

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from scripts.repository.graphs import normalization
from scripts.repository.graphs.signature import Signature
from scripts.repository.graphs.tensors import tensor
from scripts.repository.steps.preprocess.recipe import Recipe, Size

DEFAULT_SIZE = 224  # pixels, where nothing says another
BLOCKS = 7  # per side of an image


def images(model: ModelProto, signature: Signature, count: int) -> npt.NDArray[Any]:
    """Make different images as a graph takes them, of the signature's height and width.

    Their values are normalised like ImageNet's, or 0 to 255 for a graph that normalises by itself
    or takes integers.
    """
    normalized = _recipe(signature.channels, mean=0.45, std=0.225)
    is_own = normalization.warning(model, signature, normalized) is not None
    recipe = _recipe(signature.channels, pixel_range=(0, 255)) if is_own else normalized
    size = (signature.height or DEFAULT_SIZE, signature.width or DEFAULT_SIZE)
    return tensor(pixels(count, size, signature.channels), recipe, signature)


def pixels(count: int, size: Size, channels: int) -> npt.NDArray[np.uint8]:
    """Make images, UINT8 [N, H, W, C]: in turn areas like those of photographs, and noise."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (count, *size, channels))
    blocks = rng.integers(0, 256, (count, BLOCKS, BLOCKS, channels))
    rows, columns = (np.arange(side) * BLOCKS // side for side in size)
    areas = blocks[:, rows][:, :, columns] * 7 // 8 + noise // 8
    return np.where(np.arange(count).reshape(-1, 1, 1, 1) % 2, noise, areas).astype(np.uint8)


def _recipe(
    channels: int,
    *,
    mean: float = 0.0,
    std: float = 1.0,
    pixel_range: tuple[float, float] = (0.0, 1.0),
) -> Recipe:
    colour = "grey" if channels == 1 else "rgb"
    return Recipe(colour=colour, pixel_range=pixel_range, mean=(mean,), std=(std,))
