"""Makes the pixels of requests on the CPU: one image after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .base64_text import file_content
from .errors import Busy, ImageError
from .imaging import load_crops
from .limits import Limits
from .recipe import Recipe

Pixels = npt.NDArray[np.uint8]
Files = Sequence[bytes]  # of a request: the elements of IMAGE
# What a request gets: pixels, UINT8 [N, height, width, channels], in the memory of the CPU or of a
# GPU; or the error of its first invalid image.
Result = Any
Preprocess = Callable[[Sequence[Files]], list[Result]]


@dataclass(frozen=True)
class OnCpu:
    """Decodes and resizes on the CPU.

    Attributes:
        recipe: what is made of an image.
        limits: what an image may take.
        crops: how many pictures an image has, one of `recipe.CROPS`.
    """

    recipe: Recipe
    limits: Limits
    crops: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture."""
        return (*self.recipe.crop, self.recipe.channels)

    def __call__(self, requests: Sequence[Files]) -> list[Result]:
        """Process each request separately."""
        return [self._request(files) for files in requests]

    def pictures(self, data: bytes) -> list[Pixels]:
        """Make the pictures of one image, UINT8 [height, width], with channels if not grey.

        Raises:
            ImageError, Busy: as `load_crops` raises.
        """
        made = load_crops(file_content(data), self.recipe, self.crops, self.limits)
        return list(map(np.asarray, made))

    def _request(self, files: Files) -> Result:
        made: list[Pixels] = []
        for index, data in enumerate(files):
            try:
                made.extend(self.pictures(data))
            except (ImageError, Busy) as error:
                return at(index, error)
        # Most requests have one picture, which need not be copied.
        pixels = np.stack(made) if len(made) > 1 else made[0]
        return pixels.reshape(len(made), *self.shape)


def at(index: int, error: ImageError | Busy) -> ImageError | Busy:
    """Add the position in the request to an error."""
    return type(error)(f"IMAGE[{index}]: {error}")
