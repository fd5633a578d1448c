"""Tells whether a JPEG's data ends before its picture does.

libjpeg fills what is missing with grey and only warns, which Pillow does not report. If bytes that
follow the data change the picture, they were decoded as a part of it, so that it was incomplete.
"""

import zlib

from PIL import Image

START_OF_SCAN = b"\xff\xda"
END_OF_IMAGE = b"\xff\xd9"
# Bits that decode to some pixels with any Huffman table; more than a row of blocks that are cut.
PADDING = b"\x55" * 4000
GREY = 128  # every band of the pixels that libjpeg fills in
DIGEST_ROWS = 64


def padded(data: bytes) -> bytes:
    """Insert bytes between a JPEG's data and its end marker, which is added if it is absent."""
    end = data.find(END_OF_IMAGE, data.find(START_OF_SCAN))
    end = len(data) if end < 0 else end
    return b"".join([memoryview(data)[:end], PADDING, END_OF_IMAGE])


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
