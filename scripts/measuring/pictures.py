"""The sample photograph in other sizes and formats."""

import io
import random

from PIL import Image

from client import SAMPLE
from scripts.arguments import Size


def picture(size: Size, file_format: str = "JPEG", quality: int | None = None) -> bytes:
    """Encode the sample photograph with `size` = (width, height) in pixels.

    `quality` is passed to the encoder; None keeps the encoder's default.

    Raises:
        ValueError: Pillow cannot write such an image.
    """
    buffer = io.BytesIO()
    options = {} if quality is None else {"quality": quality}
    try:
        Image.open(SAMPLE).resize(size).save(buffer, file_format, **options)
    except (ValueError, KeyError) as error:
        raise ValueError(f"cannot write {size[0]}x{size[1]} as {file_format}: {error}") from error
    return buffer.getvalue()


def parts(count: int) -> list[bytes]:
    """Cut parts of random sizes out of the sample photograph, the same ones each time, as JPEG."""
    numbers = random.Random(0)  # noqa: S311 - not for secrets
    found = []
    with Image.open(SAMPLE) as image:
        for _ in range(count):
            width, height = (numbers.randint(side // 4, side) for side in image.size)
            left = numbers.randint(0, image.width - width)
            top = numbers.randint(0, image.height - height)
            buffer = io.BytesIO()
            image.crop((left, top, left + width, top + height)).save(buffer, "JPEG", quality=90)
            found.append(buffer.getvalue())
    return found
