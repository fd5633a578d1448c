"""Pictures to send, made from the sample photograph."""

import io

from PIL import Image

from client import SAMPLE
from scripts.embedded import ServerError


def picture(size: str, file_format: str, quality: int | None = None) -> bytes:
    """Encode the sample photograph in another size, such as `500x375`.

    `quality` is that of the format's encoder, which has its own default.

    Raises:
        ServerError: the size or the format is none.
    """
    buffer = io.BytesIO()
    options = {} if quality is None else {"quality": quality}
    try:
        width, height = map(int, size.split("x"))
        Image.open(SAMPLE).resize((width, height)).save(buffer, file_format, **options)
    except (ValueError, KeyError) as error:
        raise ServerError(f"no picture of {size} as {file_format} can be made: {error}") from error
    return buffer.getvalue()
