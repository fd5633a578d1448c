"""Reads the orientation of an image from its metadata.

Pillow's `getexif` is not used: of hostile EXIF data it keeps gigabytes.
"""

import re
import struct
import zlib

TAG = 0x0112
MAX_ENTRIES = 1000
MAX_TEXT = 1 << 18  # bytes of a PNG's compressed text, after decompression
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
PNG_EXIF, PNG_XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"
PNG_KEYWORDS = (PNG_EXIF + b"\0", PNG_XMP + b"\0")
VALUE_FORMATS = {1: "B", 3: "H", 4: "I"}  # TIFF's BYTE, SHORT and LONG


def of(exif: bytes, xmp: bytes) -> int:
    """Return the orientation, 1 to 8, from EXIF data or else from XMP; 1 if neither has it."""
    try:
        value = _in_exif(exif)
    except (struct.error, KeyError):
        value = 0
    if value:
        return value if value <= 8 else 1  # noqa: PLR2004 - EXIF 2.32, table 7
    found = XMP_ORIENTATION.search(xmp)
    return int(found[1]) if found else 1


def _in_exif(exif: bytes) -> int:
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}[tiff[:2]]
    (offset,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, offset)
    for start in range(offset + 2, offset + 2 + 12 * min(entries, MAX_ENTRIES), 12):
        tag, kind = struct.unpack_from(order + "HH", tiff, start)
        if tag == TAG:
            return int(struct.unpack_from(order + VALUE_FORMATS[kind], tiff, start + 8)[0])
    return 0


def in_png_text(kind: bytes, content: bytes) -> tuple[bytes, bytes]:
    """Return the EXIF data and the XMP of a PNG's tEXt, zTXt or iTXt chunk, empty if it has none.

    EXIF data is hexadecimal, with the keyword that ImageMagick uses.
    """
    keyword, _, value = content.partition(b"\0")
    if keyword == PNG_EXIF and kind in (b"tEXt", b"zTXt"):
        text = _inflate(value[1:]) if kind == b"zTXt" else value[:MAX_TEXT]
        try:
            return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii")), b""
        except ValueError:
            return b"", b""
    if keyword == PNG_XMP and kind == b"iTXt":
        text = value[2:].split(b"\0", 2)[-1]
        return b"", _inflate(text) if value[:1] == b"\1" else text[:MAX_TEXT]
    return b"", b""


def _inflate(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, MAX_TEXT)
    except zlib.error:
        return b""
