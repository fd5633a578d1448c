"""The expected predictions, computed with Pillow, NumPy and onnxruntime only.

The arithmetic follows the ONNX Model Zoo's imagenet_preprocess.py. It is independent of the code
that is tested.
"""

import io
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from scripts.repository.steps.preprocess.recipe import Recipe

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Best:
    """The top-k classes and their probabilities, best first."""

    classes: list[int]
    probabilities: list[float]


def levels(data: bytes, resize: int = 256, crop: int = 224) -> npt.NDArray[np.int64]:
    """Resize and crop one image to grey levels [crop, crop, 3]."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    ratio = resize / min(image.size)
    size = (round(ratio * image.width), round(ratio * image.height))
    array = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    height, width, _ = array.shape
    top, left = height // 2 - crop // 2, width // 2 - crop // 2
    return array[top : top + crop, left : left + crop].astype(np.int64)


def opened(data: bytes) -> Image.Image:
    """Decode a file with Pillow."""
    return Image.open(io.BytesIO(data))


def picture(image: Image.Image, recipe: Recipe) -> npt.NDArray[np.int64]:
    """Make grey levels [height, width, channels] of an upright opaque image, as a recipe says."""
    image = image.convert("L" if recipe.colour == "grey" else "RGB")
    size = resized(image.height, image.width, recipe)
    if recipe.antialias or recipe.interpolation == "nearest":
        method = Image.Resampling[recipe.interpolation.upper()]
        rows = image.resize((size[1], image.height), method)  # the order of most releases
        array = np.asarray(rows.resize((size[1], size[0]), method))
    else:
        pixels = np.asarray(image, np.float64).reshape(image.height, image.width, -1)
        down = kernel(image.height, size[0], recipe.interpolation)
        across = kernel(image.width, size[1], recipe.interpolation)
        narrow = np.einsum("Yy,yxc->Yxc", down, pixels)
        array = np.einsum("Xx,Yxc->YXc", across, narrow).round().clip(0, 255)
    array = array.reshape(*size, -1)
    starts = [
        start(have, want, recipe.rounding) for have, want in zip(size, recipe.crop, strict=True)
    ]
    border = 2 * max(recipe.crop)
    canvas = np.empty((size[0] + 2 * border, size[1] + 2 * border, array.shape[2]), np.int64)
    canvas[:] = recipe.fill[: array.shape[2]]
    canvas[border : border + size[0], border : border + size[1]] = array
    top, left = (border + each for each in starts)
    return canvas[top : top + recipe.crop[0], left : left + recipe.crop[1]]


def resized(height: int, width: int, recipe: Recipe) -> tuple[int, int]:
    """Compute the size after resizing, in fractions and not in floating-point numbers."""
    tall, wide = Fraction(recipe.resize[0], height), Fraction(recipe.resize[1], width)
    if recipe.mode == "squash":
        return recipe.resize
    factor = min(tall, wide) if recipe.mode == "letterbox" else max(tall, wide)
    truncates = recipe.mode == "shorter" and recipe.rounding != "zoo"
    whole = int if truncates and recipe.resize[0] == recipe.resize[1] else round
    return max(1, whole(factor * height)), max(1, whole(factor * width))


def start(have: int, want: int, rounding: str) -> int:
    """Compute where a crop starts in a side; below 0 where the side is padded."""
    if rounding == "zoo":
        return have // 2 - want // 2
    if rounding == "transformers":
        return math.floor((have - want) / 2)
    return round((have - want) / 2) if have >= want else -((want - have) // 2)


def kernel(source: int, target: int, interpolation: str) -> npt.NDArray[np.float64]:
    """Return the weights [target, source] of interpolation without antialiasing."""
    weights: npt.NDArray[np.float64] = np.zeros((target, source))
    for row in range(target):
        centre = (row + 0.5) * source / target - 0.5
        for column in range(source):
            x = abs(column - centre)
            if interpolation == "bilinear":
                weights[row, column] = max(0, 1 - x)
            elif x < 1:
                weights[row, column] = 1.5 * x**3 - 2.5 * x**2 + 1
            elif x < 2:
                weights[row, column] = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def normalized(window: npt.NDArray[np.int64]) -> Array:
    """Normalise grey levels [crop, crop, 3] to FP32 [3, crop, crop], as the zoo's graphs need."""
    tensor: Array = ((window / 255 - MEAN) / STD).transpose(2, 0, 1).astype(np.float32)
    return tensor


def pixels(data: bytes, resize: int = 256, crop: int = 224) -> Array:
    """Preprocess one image to FP32 [3, crop, crop]."""
    return normalized(levels(data, resize, crop))


def logits(session: onnxruntime.InferenceSession, images: list[Array]) -> Array:
    """Run images one by one, since a graph may have a fixed batch size of one."""
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


def best(scores: Array, k: int = 5) -> Best:
    """Softmax and top-k of one image's logits, in double precision."""
    exponents = np.exp(scores.astype(np.float64) - scores.max())
    probabilities = exponents / exponents.sum()
    order = np.argsort(-scores, kind="stable")[:k]
    return Best(order.tolist(), probabilities[order].tolist())
