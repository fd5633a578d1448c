"""The expected predictions, computed with Pillow, NumPy and onnxruntime only.

The arithmetic follows the ONNX Model Zoo's imagenet_preprocess.py. It is independent of the code
that is tested.
"""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

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
