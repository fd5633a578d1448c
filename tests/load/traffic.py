"""What a load test sends: good and broken images, in requests that are made beforehand."""

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from client import SAMPLE
from tests.load.options import Size

QUALITY = 90
BROKEN: Mapping[str, bytes] = {
    "text": b"this is no image",
    "half a JPEG": SAMPLE.read_bytes()[:9000],
    "a PNG's head": b"\x89PNG\r\n\x1a\n" + bytes(40),
}
BROKEN_NAME = "broken image"


@dataclass(frozen=True)
class Request:
    """A batch of encoded images, and the name of the row that Locust counts it in.

    `pictures` names each image, the same bytes always by the same name; `broken` is the place of
    the image that is none.
    """

    name: str
    images: tuple[bytes, ...]
    pictures: tuple[str, ...]
    broken: int | None = None


def good(sizes: Sequence[Size], batch_size: int) -> list[Request]:
    """Make one request for each size; a batch goes on with the next sizes."""
    photographs = {f"{width}x{height}": jpeg((width, height)) for width, height in sizes}
    names = list(photographs)
    requests = []
    for first in range(len(names)):
        batch = tuple(itertools.islice(itertools.cycle(names), first, first + batch_size))
        name = batch[0] if batch_size == 1 else f"{batch_size} images"
        requests.append(Request(name, tuple(photographs[each] for each in batch), batch))
    return requests


def broken(requests: Sequence[Request]) -> list[Request]:
    """Put something that is no image into the requests, at another place each time."""
    made = []
    for number, (kind, data) in enumerate(BROKEN.items()):
        request = requests[number % len(requests)]
        place = number % len(request.images)
        images, pictures = list(request.images), list(request.pictures)
        images[place], pictures[place] = data, kind
        made.append(Request(BROKEN_NAME, tuple(images), tuple(pictures), place))
    return made


def jpeg(size: Size) -> bytes:
    """Encode the sample photograph in a size of (width, height) pixels."""
    buffer = io.BytesIO()
    Image.open(SAMPLE).resize(size).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def is_broken(number: int, share: float) -> bool:
    """Whether the request of this number, from 0, is a broken one; they are spread evenly."""
    return int((number + 1) * share) > int(number * share)
