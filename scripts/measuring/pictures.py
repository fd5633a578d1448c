"""The sample photograph in other sizes and formats."""

import io

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
