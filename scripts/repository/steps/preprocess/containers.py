"""Removes from image files what the pixels do not need.

Metadata would otherwise cost what no header tells: Pillow reads every chunk in Python, and of EXIF
data with N entries it keeps N copies. It also refuses PNG files with more than 1 MiB of text.
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import orientation
from .errors import ImageError

# Pillow and this module take about 2 µs for each segment or chunk of a file. libpng writes
# chunks of 8 KiB, so that this is enough for 512 MiB.
MAX_PARTS = 65_536

# JPEG: ITU-T T.81, table B.1. A marker is 0xFF, any number of times, and a code; other bytes
# between segments are skipped, as libjpeg does.
MARKER = 0xFF
NO_CODE = (0x00, 0xFF)
ANY_MARKER = re.compile(rb"\xff[\x01-\xfe]")
SEGMENT = struct.Struct(">BBH")  # a marker, its code and the length of what follows
WITHOUT_LENGTH = {0x01, *range(0xD0, 0xDA)}
START_OF_SCAN = 0xDA
START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
ARITHMETIC = {*range(0xC9, 0xD0)} - {0xCC}
# Application data and comments, but for APP0 (JFIF) and APP14 (Adobe), which determine the colour
# space; and what is reserved for extensions, of which Pillow reads the content as segments.
NO_PIXELS = {0xC8, *range(0xE1, 0xFF)} - {0xEE}
# Bytes of what remains before the pixels. It is usually less than 2 KiB; Pillow reads quantization
# tables in Python.
MAX_JPEG_HEADER = 1 << 18
EXIF_SEGMENT = b"Exif\0\0"
XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"

PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT"}
WEBP_PICTURE = {b"VP8 ", b"VP8L", b"ANMF"}
WEBP_BEFORE_PICTURE = {b"ANIM", b"ALPH"}
WEBP_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # ICC profile, EXIF, XMP
GIF_TRANSPARENCY_FLAG = 0x01
MAX_GIF_HEADER = 1 << 20  # bytes of comments and other extensions before the picture


@dataclass(frozen=True)
class Stripped:
    """An image file without metadata.

    Attributes:
        data: the file; the bytes that were given if nothing was removed.
        orientation: the EXIF orientation, 1 to 8.
        scans: of a JPEG that is decoded only after all its scans have been read: their number,
            but at least 2. Otherwise 1.
        frame: a JPEG's start-of-frame segment, with its marker.
        header: the bytes of a JPEG before its first scan.
        canvas: the width and height of a WebP, whose decoder allocates it when the file is opened.
    """

    data: bytes
    orientation: int = 1
    scans: int = 1
    frame: bytes = b""
    header: int = 0
    canvas: tuple[int, int] | None = None

    @property
    def is_arithmetic(self) -> bool:
        """Whether it is a JPEG with arithmetic coding."""
        return bool(self.frame) and self.frame[1] in ARITHMETIC


def strip(data: bytes) -> Stripped:
    """Remove metadata and all frames but the first, as far as the format allows.

    Raises:
        ImageError: the file has no picture, or too many parts.
    """
    try:
        return _reader(data)(data)
    except (IndexError, struct.error):
        raise _no_picture() from None


def _reader(data: bytes) -> Callable[[bytes], Stripped]:
    if data.startswith(b"\xff\xd8"):
        return _jpeg
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _gif
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp
    return Stripped


def _no_picture() -> ImageError:
    return ImageError("broken image: the file ends before its picture")


def _too_many_parts() -> ImageError:
    return ImageError(f"the file has more than {MAX_PARTS} segments or chunks")


class _Kept:
    """The parts of a file that are kept, joined without copies of the parts."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.view = memoryview(data)
        self.parts: list[memoryview | bytes] = []
        self.start = 0  # of the part that goes on

    def drop(self, start: int, end: int) -> None:
        """Remove `data[start:end]`; calls are in the order of the file."""
        if start == end:
            return
        if start > self.start:
            self.parts.append(self.view[self.start : start])
        self.start = end

    def replace(self, start: int, new: bytes) -> None:
        """Replace as many bytes as `new` has."""
        if self.data[start : start + len(new)] != new:
            self.drop(start, start + len(new))
            self.parts.append(new)

    def join(self) -> bytes:
        """Return the file; the same object if nothing was removed."""
        if not self.start:
            return self.data
        return b"".join([*self.parts, self.view[self.start :]])


def _jpeg(data: bytes) -> Stripped:
    kept = _Kept(data)
    exif = xmp = b""
    components, frame, start = 1, b"", 0
    for code, before, start, end in _jpeg_segments(data):
        kept.drop(before, start)
        if code in NO_PIXELS:
            content = data[start + 4 : end]
            if content.startswith(EXIF_SEGMENT):
                exif = exif or content
            elif content.startswith(XMP_SEGMENT):
                xmp = xmp or content
            kept.drop(start, end)
        elif code in START_OF_FRAME:
            frame, components = data[start:end], data[start + 9]
    stripped = kept.join()
    header = len(stripped) - (len(data) - start)
    if header > MAX_JPEG_HEADER:
        raise ImageError(f"a JPEG whose tables take more than {MAX_JPEG_HEADER} bytes")
    is_progressive = bool(frame) and frame[1] in PROGRESSIVE
    is_buffered = is_progressive or data[start + 4] < components
    return Stripped(
        stripped,
        orientation.of(exif, xmp) if exif or xmp else 1,
        max(2, data.count(b"\xff\xda", start)) if is_buffered else 1,
        frame,
        header,
    )


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield the segments up to the first start of scan.

    Yields:
        The marker's code, and the ends of the previous segment, of the bytes that are skipped
        after it, and of the segment.
    """
    end = 2
    for _ in range(MAX_PARTS):
        before = start = end
        lead, code, length = SEGMENT.unpack_from(data, start)
        if lead != MARKER or code in NO_CODE:
            if not (found := ANY_MARKER.search(data, start)):
                raise _no_picture()
            start = found.end() - 2
            _, code, length = SEGMENT.unpack_from(data, start)
        end = start + 2 if code in WITHOUT_LENGTH else start + 2 + length
        yield code, before, start, end
        if code == START_OF_SCAN:
            return
    raise _too_many_parts()


def _png(data: bytes) -> Stripped:
    kept = _Kept(data)
    exif = xmp = b""
    texts: dict[bytes, tuple[bytes, bytes]] = {}  # the first chunk of each keyword
    position = 8
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind == b"IEND":
            break
        if kind not in PNG_PIXELS:
            content = data[position + 8 : end - 4]
            if kind == b"eXIf":
                exif = content
            elif content.startswith(orientation.PNG_KEYWORDS):
                texts.setdefault(content[:3], (kind, content))
            kept.drop(position, end)
        position = end
    else:
        raise _too_many_parts()
    for kind, content in texts.values():
        text_exif, text_xmp = orientation.in_png_text(kind, content)
        exif, xmp = exif or text_exif, xmp or text_xmp
    return Stripped(kept.join(), orientation.of(exif, xmp))


def _gif(data: bytes) -> Stripped:
    kept = _Kept(data)
    flags = data[10]
    position = 13 + (6 << (flags & 7) if flags & 0x80 else 0)
    while position < MAX_GIF_HEADER:
        introducer = data[position : position + 1]
        if introducer == b",":
            return Stripped(kept.join())
        if introducer in (b"", b";"):
            raise _no_picture()
        if introducer != b"!":
            position += 1
            continue
        end = _end_of_gif_blocks(data, position + 2)
        if data[position + 1 : position + 3] == b"\xf9\x04" and end == position + 8:
            # With a disposal method Pillow allocates the frame a second time, before it is asked.
            transparency = data[position + 3] & GIF_TRANSPARENCY_FLAG
            kept.replace(position + 3, bytes([transparency]))
        else:
            kept.drop(position, end)
        position = end
    raise ImageError(f"a GIF whose picture starts after more than {MAX_GIF_HEADER} bytes")


def _end_of_gif_blocks(data: bytes, position: int) -> int:
    while position < MAX_GIF_HEADER and (length := data[position]):
        position += 1 + length
    return position + 1


def _webp(data: bytes) -> Stripped:
    exif = xmp = b""
    parts: list[bytes] = []
    has_picture, position = False, 12
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        start, end = position + 8, position + 8 + length
        if kind == b"EXIF":
            exif = data[start:end]
        elif kind == b"XMP ":
            xmp = data[start:end]
        elif kind == b"VP8X":
            flags = data[start] & ~WEBP_METADATA_FLAGS
            parts.append(data[position:start] + bytes([flags]) + data[start + 1 : end])
        elif not has_picture and (kind in WEBP_PICTURE or kind in WEBP_BEFORE_PICTURE):
            has_picture = kind in WEBP_PICTURE
            parts.append(data[position:end] + b"\0" * (length % 2))
        position = end + length % 2
    else:
        raise _too_many_parts()
    size = 4 + sum(map(len, parts))
    stripped = b"".join([b"RIFF", struct.pack("<I", size), b"WEBP", *parts])
    return Stripped(stripped, orientation.of(exif, xmp), canvas=_webp_canvas(parts[0]))


def _webp_canvas(first: bytes) -> tuple[int, int]:
    """Read width and height from the first chunk: RFC 9649 (VP8X, VP8L) and RFC 6386, 9.1 (VP8)."""
    if first.startswith(b"VP8X"):
        width, height = first[12:15], first[15:18]
        return int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
    if first.startswith(b"VP8L"):
        (bits,) = struct.unpack_from("<I", first, 9)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", first, 14)
    return width & 0x3FFF, height & 0x3FFF
