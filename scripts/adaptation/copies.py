"""Finds images that are almost equal, such as a photograph and a smaller or re-encoded copy of it.

Thumbnails are compared, not features: how far copies are from each other in the features differs
between networks.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

Thumbnails = npt.NDArray[np.uint8]

SIDE = 16  # of a thumbnail in pixels
# Root mean square of the differences of two thumbnails, in grey levels. Of 334 photographs, each of
# another class of ImageNet, no two differed by less than 18.9. Copies at a half or a third of the
# size, or with JPEG qualities from 50 to 90, differed by at most 3.2.
EQUAL = 4
BLOCK = 256  # images that are compared with all others at the same time


def thumbnail(pixels: npt.NDArray[np.uint8]) -> Thumbnails:
    """Make grey levels, UINT8 [SIDE * SIDE], of an image [height, width, channels]."""
    grey = Image.fromarray(pixels.mean(axis=2).astype(np.uint8))
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX)).ravel()


def nearest(images: Thumbnails, others: Thumbnails) -> npt.NDArray[np.int64]:
    """Find the image in `others` that each image is almost equal to, or -1."""
    first, second = images.astype(np.float32), others.astype(np.float32)
    lengths = (second**2).sum(axis=1)
    found = np.full(len(images), -1, np.int64)
    for start in range(0, len(images), BLOCK):
        block = first[start : start + BLOCK]
        squares = (block**2).sum(axis=1)[:, None] + lengths - 2 * block @ second.T
        is_equal = squares.min(axis=1) < EQUAL**2 * images.shape[1]
        found[start : start + BLOCK] = np.where(is_equal, squares.argmin(axis=1), -1)
    return found
