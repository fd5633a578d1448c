"""Resizes without antialiasing: each pixel is interpolated between the nearest ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from .geometry import Fit
from .resizing import BAND_PIXELS, SUPPORT, Source

# What a pixel of a band takes: as Pillow keeps it, as bytes, and three times as floating-point.
BYTES_PER_PIXEL = 4 + 3 + 3 * 12

# OpenCV's weights of UINT8 pixels are multiples of 1/2048, and it drops four bits between the two
# passes (INTER_RESIZE_COEF_BITS and VResizeLinear in modules/imgproc/src/resize.cpp).
OPENCV_ONE, OPENCV_BITS = 2048, 4

Floats = npt.NDArray[np.floating[Any]]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Taps:
    """For each row (or column) of the result, the ones that it is blended from.

    Attributes:
        indices: INTP [result, blended].
        weights: FP32 or INT32 [result, blended].
    """

    indices: npt.NDArray[np.intp]
    weights: npt.NDArray[Any]


def without_antialias(source: Source, fit: Fit, interpolation: str) -> Image.Image:
    """Interpolate between the nearest 2 x 2 (bilinear) or 4 x 4 (bicubic) pixels.

    Centres of pixels are at halves, pixels beyond the border do not count, and the cubic has a of
    -0.5: TensorFlow's `tf.image.resize` with `antialias=False`, also in Keras; for bilinear also
    PyTorch's `interpolate` with `align_corners=False`. `opencv` is bilinear in OpenCV's integers.

    Returns:
        An image of the size `fit.kept_size`.
    """
    height, width = source.size
    left, top, right, bottom = fit.kept
    taps, blend = (_taps, _blend) if interpolation != "opencv" else (_integer_taps, _blend_integers)
    across = taps(width, fit.resized[1], range(left, right), interpolation)
    used, indices = np.unique(across.indices, return_inverse=True)
    across = Taps(indices.reshape(across.indices.shape), across.weights)
    step = max(1, int(BAND_PIXELS / max(width * height / fit.resized[0], len(used))))
    bands = []
    for start in range(top, bottom, step):
        kept = range(start, min(start + step, bottom))
        down = taps(height, fit.resized[0], kept, interpolation)
        first = int(down.indices.min())
        rows = np.asarray(source.rows(first, int(down.indices.max()) + 1))
        pixels = rows.reshape(*rows.shape[:2], -1).take(used, axis=1)
        bands.append(blend(pixels, Taps(down.indices - first, down.weights), across))
    picture = np.concatenate(bands)
    return Image.fromarray(picture if source.mode == "RGB" else picture[:, :, 0])


def _taps(source: int, resized: int, kept: range, interpolation: str) -> Taps:
    support = int(SUPPORT[interpolation])
    centres = (np.arange(kept.start, kept.stop) + 0.5) * (source / resized) - 0.5
    pixels = np.floor(centres).astype(np.intp)[:, None] + np.arange(1 - support, 1 + support)
    distances = np.abs(pixels - centres[:, None])
    weights = 1 - distances if interpolation == "bilinear" else _cubic(distances)
    weights[(pixels < 0) | (pixels >= source)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return Taps(pixels.clip(0, source - 1), weights.astype(np.float32))


def _integer_taps(source: int, resized: int, kept: range, _: str) -> Taps:
    centres = (np.arange(kept.start, kept.stop) + 0.5) * (source / resized) - 0.5
    centres = centres.astype(np.float32)
    first = np.floor(centres)
    second = centres - first
    weights = np.rint(np.stack([1 - second, second], axis=1) * OPENCV_ONE).astype(np.int32)
    pixels = first.astype(np.intp)[:, None] + np.arange(2)
    return Taps(pixels.clip(0, source - 1), weights)


def _cubic(distances: Floats) -> Floats:
    """Keys' cubic convolution (1981, IEEE TASSP 29(6), equation 15), whose a is -0.5."""
    near = (1.5 * distances - 2.5) * distances**2 + 1
    far = ((-0.5 * distances + 2.5) * distances - 4) * distances + 2
    return np.where(distances < 1, near, far)


def _blend(pixels: Bytes, down: Taps, across: Taps) -> Bytes:
    values = _blended(_blended(pixels, down, axis=0), across, axis=1)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _blend_integers(pixels: Bytes, down: Taps, across: Taps) -> Bytes:
    rows = sum(
        pixels.take(indices, 1) * weights[None, :, None]
        for indices, weights in zip(across.indices.T, across.weights.T, strict=True)
    )
    rows = rows >> OPENCV_BITS
    total = sum(
        (rows.take(indices, 0) * weights[:, None, None]) >> 16
        for indices, weights in zip(down.indices.T, down.weights.T, strict=True)
    )
    blended: Bytes = ((total + 2) >> 2).astype(np.uint8)
    return blended


def _blended(pixels: npt.NDArray[Any], taps: Taps, axis: int) -> npt.NDArray[np.float32]:
    """Sum weighted rows (axis 0) or columns (axis 1)."""
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    size = list(pixels.shape)
    size[axis] = len(taps.indices)
    total = np.zeros(size, np.float32)
    for indices, weights in zip(taps.indices.T, taps.weights.T, strict=True):
        total += pixels.take(indices, axis) * weights.reshape(shape)
    return total
