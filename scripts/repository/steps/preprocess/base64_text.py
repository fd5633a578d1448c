"""Images as base64 text, which is how JSON carries them."""

import base64
import binascii
import io

from .errors import ImageError
from .limits import MIB

# The first bytes of a JPEG, PNG, WebP, GIF and BMP file as base64, and of a JPEG in the URL-safe
# alphabet. No file of these formats starts with such text itself.
PREFIXES = (b"/9j/", b"iVBOR", b"UklGR", b"R0lGOD", b"Qk", b"_9j_")
DATA_URL = b"data:"
LONGEST_HEADER = 200  # characters of a data URL before the base64

# The default of --http-max-input-size, by which newer releases of Triton limit an HTTP request.
# These are the characters of 48 MiB, the default of `Limits.max_bytes`.
MAX_CHARACTERS = 64 * MIB
CHUNK = MIB  # decoded at a time, so that the text is not copied as a whole

# RFC 4648, section 5: the URL-safe alphabet has - and _ in place of + and /.
STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")
WHITESPACE = b" \t\r\n"


def file_content(data: bytes) -> bytes:
    """Decode an element of IMAGE if it is base64 of an image or a `data:image/…;base64,` URL.

    Line breaks and spaces are ignored, the padding may be missing, and both alphabets of RFC 4648
    are accepted.

    Returns:
        The image file's bytes; `data` itself if it is not text of this kind.

    Raises:
        ImageError: the base64 is invalid or too long, or a data URL is not one of an image.
    """
    start = data[:64].lstrip(WHITESPACE)
    if start.lower().startswith(DATA_URL):
        return _decode(data, _end_of_header(data))
    return _decode(data) if start.startswith(PREFIXES) else data


def _end_of_header(url: bytes) -> int:
    end = url.find(b",", 0, LONGEST_HEADER) + 1
    header = url[:end].lower().strip()
    if not (header.startswith(b"data:image/") and header.endswith(b";base64,")):
        raise ImageError("a data URL must start with data:image/...;base64,")
    return end


def _decode(text: bytes, start: int = 0) -> bytes:
    if len(text) > MAX_CHARACTERS:
        raise ImageError(
            f"base64 of {len(text)} characters; at most {MAX_CHARACTERS} are decoded, "
            "send larger files as bytes"
        )
    end = len(text) - _length_of_padding(text[-CHUNK:])
    content = io.BytesIO()
    rest = b""
    try:
        for position in range(start, end, CHUNK):
            chunk = text[position : min(position + CHUNK, end)]
            digits = rest + chunk.translate(STANDARD_ALPHABET, WHITESPACE)
            whole = len(digits) // 4 * 4
            if b"=" in digits:
                raise ImageError("invalid base64: padding before the end")
            content.write(base64.b64decode(digits[:whole], validate=True))
            rest = digits[whole:]
        content.write(base64.b64decode(rest + b"=" * (-len(rest) % 4), validate=True))
    except binascii.Error as error:
        raise ImageError(f"invalid base64: {error}") from None
    return content.getvalue()


def _length_of_padding(text: bytes) -> int:
    return len(text) - len(text.rstrip(b"=" + WHITESPACE))
