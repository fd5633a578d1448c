"""The requests of a load test: batches of good and broken images, made in advance."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.arguments import Size
from scripts.measuring.pictures import picture
from tests.images import BROKEN

QUALITY = 90
BROKEN_NAME = "broken image"


@dataclass(frozen=True)
class ImageBatch:
    """A batch of image files, and the row of Locust's table that counts it.

    `pictures` names each image; the same bytes always have the same name. `broken` is the position
    of the broken image.
    """

    name: str
    images: tuple[bytes, ...]
    pictures: tuple[str, ...]
    broken: int | None = None


def good(sizes: Sequence[Size], batch_size: int) -> list[ImageBatch]:
    """Return one batch for each size; it is filled up with the next sizes."""
    photos = {f"{size[0]}x{size[1]}": picture(size, quality=QUALITY) for size in sizes}
    names = list(photos)
    batches = []
    for first in range(len(names)):
        pictures = tuple(itertools.islice(itertools.cycle(names), first, first + batch_size))
        name = pictures[0] if batch_size == 1 else f"{batch_size} images"
        batches.append(ImageBatch(name, tuple(photos[each] for each in pictures), pictures))
    return batches


def broken(batches: Sequence[ImageBatch]) -> list[ImageBatch]:
    """Replace one image of a batch for each kind of broken image, at changing positions."""
    made = []
    for number, (kind, data) in enumerate(BROKEN.items()):
        batch = batches[number % len(batches)]
        position = number % len(batch.images)
        images, pictures = list(batch.images), list(batch.pictures)
        images[position], pictures[position] = data, kind
        made.append(ImageBatch(BROKEN_NAME, tuple(images), tuple(pictures), position))
    return made


def is_broken(number: int, share: float) -> bool:
    """Return whether the request of this number, from 0, is broken; they are spread evenly."""
    return int((number + 1) * share) > int(number * share)
