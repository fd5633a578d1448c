"""A large photograph, in the step's own code and in the zoo's."""

import io
import statistics
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from scripts.measuring.figures import Photograph
from scripts.repository.steps.preprocess import imaging
from scripts.repository.steps.preprocess.recipe import Recipe

TURNS = 5


def reference(data: bytes, recipe: Recipe) -> npt.NDArray[np.float32]:
    """Preprocess as the zoo's imagenet_preprocess.py does, to FP32 [3, crop, crop]."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    ratio = recipe.resize / min(image.size)
    size = (round(ratio * image.width), round(ratio * image.height))
    array = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    top, left = (side // 2 - recipe.crop // 2 for side in array.shape[:2])
    window = array[top : top + recipe.crop, left : left + recipe.crop]
    normalized = (window / 255 - np.array(recipe.mean)) / np.array(recipe.std)
    result: npt.NDArray[np.float32] = normalized.transpose(2, 0, 1).astype(np.float32)
    return result


def step(data: bytes, recipe: Recipe) -> npt.NDArray[np.uint8]:
    """Preprocess as the step does, to uint8 [crop, crop, 3]."""
    return np.asarray(imaging.load(data, recipe))


def measure(data: bytes, recipe: Recipe) -> Photograph:
    """Let both take turns, and return the median of each."""
    ways = {"step_ms": step, "reference_ms": reference}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, way in ways.items():
            times[name].append(_milliseconds(way, data, recipe))
    return Photograph(**{name: statistics.median(each) for name, each in times.items()})


def _milliseconds(way: Callable[[bytes, Recipe], object], data: bytes, recipe: Recipe) -> float:
    start = time.perf_counter()
    way(data, recipe)
    return 1000 * (time.perf_counter() - start)
