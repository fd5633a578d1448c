"""Tells whether a file ends before its picture does.

Files may lack only their last bytes: an end marker, a checksum or padding. If different bytes in
their place give the same pixels, none of them was decoded as a part of the picture.
"""

import zlib

from PIL import Image

JPEG = b"\xff\xd8"
START_OF_SCAN = b"\xff\xda"
END_OF_IMAGE = b"\xff\xd9"
# In any Huffman or LZW code these are some pixels, more than a row of blocks of a JPEG.
TAILS = (b"\x55" * 4000, b"\xaa" * 4000)
# libjpeg fills what is missing with grey and only warns, which Pillow does not report.
GREY = 128
DIGEST_ROWS = 64


def with_tail(data: bytes, tail: bytes) -> bytes:
    """Insert bytes where a file's pixel data ends: before a JPEG's end marker, or at the end."""
    if not data.startswith(JPEG):
        return data + tail
    end = data.find(END_OF_IMAGE, data.find(START_OF_SCAN))
    end = len(data) if end < 0 else end
    if data[end - 1] == END_OF_IMAGE[0]:
        end -= 1  # half a marker
    return b"".join([memoryview(data)[:end], tail, END_OF_IMAGE])


def ends_in_grey(image: Image.Image) -> bool:
    """Tell whether the last row is the grey that libjpeg fills in; few complete pictures end so."""
    last = image.height - 1
    if image.getpixel((0, last)) not in (GREY, (GREY, GREY, GREY)):
        return False
    row = image.crop((0, last, image.width, image.height))
    return set(row.tobytes()) == {GREY}


def digest(image: Image.Image) -> int:
    """Return a checksum of an image's pixels."""
    checksum = 0
    for top in range(0, image.height, DIGEST_ROWS):
        band = image.crop((0, top, image.width, min(top + DIGEST_ROWS, image.height)))
        checksum = zlib.crc32(band.tobytes(), checksum)
    return checksum
