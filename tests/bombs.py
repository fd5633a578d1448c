"""Small files whose pictures cost much to decode: memory, time, or both."""

import math
import struct
import zlib
from collections.abc import Callable, Sequence

from PIL import Image

from tests import images

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # PNG's colour types
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
PAETH = 4  # PNG's slowest filter
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
LINES_IN_BLOCK = 64


def png(
    width: int,
    height: int,
    colour_type: int,
    *,
    depth: int = 8,
    is_interlaced: bool = False,
    chunks: bytes = b"",
    rows: Sequence[bytes] = (),
) -> bytes:
    """A PNG of these rows, or of zeros; `chunks` come before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, is_interlaced)
    passes = ADAM7 if is_interlaced else ((0, 0, 1, 1),)
    lines = [(b"\0" + row, 1) for row in rows]
    for left, top, across, down in () if rows else passes:
        bits = math.ceil((width - left) / across) * CHANNELS[colour_type] * depth
        row = bytes([PAETH]) + bytes(math.ceil(bits / 8))
        lines.append((row, math.ceil((height - top) / down)))
    pixels = chunk(b"IDAT", compressed(lines))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + pixels + chunk(b"IEND", b"")


def compressed(lines: Sequence[tuple[bytes, int]]) -> bytes:
    """Compress each line as often as its number says, in the format of zlib (RFC 1950).

    Blocks that end in a full flush do not depend on one another: one is compressed and repeated.
    """
    stream = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)

    def flushed(data: bytes) -> bytes:
        return stream.compress(data) + stream.flush(zlib.Z_FULL_FLUSH)

    parts, checksum = [b"\x78\x01"], 1
    for line, count in lines:
        blocks, rest = divmod(count, LINES_IN_BLOCK)
        parts += [flushed(line * LINES_IN_BLOCK)] * blocks if blocks else []
        parts.append(flushed(line * rest))
        for _ in range(count):
            checksum = zlib.adler32(line, checksum)
    return b"".join([*parts, stream.flush(), struct.pack(">I", checksum)])


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def exif(orientation: int, padding: bytes = b"") -> bytes:
    """EXIF data (TIFF) that holds an orientation."""
    return struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0) + padding


def exif_of_copies(entries: int, length: int) -> bytes:
    """EXIF data with `entries` tags that all refer to the same `length` bytes."""
    head = struct.pack("<2sHIH", b"II", 42, 8, entries)
    tags = [struct.pack("<HHII", tag, 7, length, 8) for tag in range(entries)]
    return b"".join([head, *tags, bytes(length)])


def webp(width: int, height: int) -> bytes:
    """A lossless WebP of one colour, which needs no bits for its pixels."""
    small = images.encode(Image.new("RGBA", (16, 16), (255, 0, 0, 90)), "WEBP", lossless=True)
    size = (width - 1) | (height - 1) << 14
    start = small.index(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", small, start)
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    patched = small[:start] + struct.pack("<I", bits >> 28 << 28 | size) + small[start + 4 :]
    if b"VP8X" in patched:
        patched = patched[:24] + canvas + patched[30:]
    return patched


def jpeg(
    width: int, height: int, *, components: int = 3, scans: int | None = None, orientation: int = 1
) -> bytes:
    """A JPEG of one colour whose entropy-coded bits are all 0.

    With `scans` it is progressive: the DC coefficients of all blocks, and then as many scans that
    hold nothing but the ends of bands, each for 16,384 blocks.
    """
    blocks = math.ceil(width / 8) * math.ceil(height / 8)
    frame = 0xC0 if scans is None else 0xC2
    layers = b"".join(bytes([number, 0x11, 0]) for number in range(1, components + 1))
    tables = b"".join(bytes([number, 0]) for number in range(1, components + 1))
    # A Huffman table of one code, 0: no difference (DC), the end of a block or of 2^14 (AC).
    end = 0x00 if scans is None else 0xE0
    one_code = bytes([1, *[0] * 15])
    parts = [
        b"\xff\xd8",
        segment(0xE1, b"Exif\0\0" + exif(orientation)),
        segment(0xDB, bytes(1) + bytes([16] * 64)),
        segment(frame, struct.pack(">BHHB", 8, height, width, components) + layers),
        segment(0xC4, b"\x00" + one_code + b"\x00"),
        segment(0xC4, b"\x10" + one_code + bytes([end])),
    ]
    last = 63 if scans is None else 0
    bits_per_block = 2 if scans is None else 1
    parts += [
        segment(0xDA, bytes([components]) + tables + bytes([0, last, 0])),
        bytes(math.ceil(blocks * components * bits_per_block / 8)),
    ]
    empty = segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + bytes(
        math.ceil(blocks / 2**14) * 15 // 8 + 1
    )
    return b"".join([*parts, empty * (scans or 0), b"\xff\xd9"])


def segment(code: int, content: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, code, len(content) + 2) + content


def rle_bmp(width: int, height: int) -> bytes:
    """A BMP whose rows are empty, which Pillow fills byte by byte."""
    return bmp(width, height, 8, b"\1\7\0\0" * height + b"\0\1", compression=1)


def bilevel_bmp(width: int, height: int) -> bytes:
    """A BMP of one bit a pixel."""
    return bmp(width, height, 1, bytes(math.ceil(width / 32) * 4 * height))


def bmp(width: int, height: int, depth: int, pixels: bytes, compression: int = 0) -> bytes:
    """A BMP with a palette."""
    colours = 1 << depth
    palette = bytes(range(256)) * 4
    start = 54 + 4 * colours
    head = struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start)
    head += struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, depth, compression, 0, 0, 0, colours, 0
    )
    return head + palette[: 4 * colours] + pixels


def gif(width: int, height: int) -> bytes:
    """A GIF of which one colour is transparent."""
    image = Image.new("P", (width, height))
    image.putpalette([255, 0, 0, 0, 255, 0])
    return images.encode(image, "GIF", transparency=0)


TRANSPARENCY = chunk(b"tRNS", bytes([0, 128, 255]))
COLOURS = chunk(b"PLTE", bytes(range(9)))
TURNED = chunk(b"eXIf", exif(6))

# About as large as the limits allow.
BOMBS: dict[str, Callable[[], bytes]] = {
    "PNG, grey": lambda: png(10_000, 9_999, GREY),
    "PNG, grey and alpha": lambda: png(10_000, 9_999, GREY_ALPHA),
    "PNG, RGB": lambda: png(9_700, 9_700, RGB),
    "PNG, RGB, turned": lambda: png(9_700, 9_700, RGB, chunks=TURNED),
    "PNG, RGBA": lambda: png(8_800, 8_800, RGBA),
    "PNG, RGBA, turned, interlaced": lambda: png(
        8_800, 8_800, RGBA, chunks=TURNED, is_interlaced=True
    ),
    "PNG, RGBA of 16 bits": lambda: png(7_000, 6_600, RGBA, depth=16),
    "PNG, grey of 16 bits": lambda: png(10_000, 9_999, GREY, depth=16),
    "PNG, grey of 16 bits, transparent": lambda: png(
        10_000, 9_999, GREY, depth=16, chunks=chunk(b"tRNS", bytes(2))
    ),
    "PNG, RGB of 16 bits, transparent": lambda: png(
        5_100, 5_100, RGB, depth=16, chunks=chunk(b"tRNS", bytes(6))
    ),
    "PNG, palette with alpha": lambda: png(10_000, 9_999, PALETTE, chunks=COLOURS + TRANSPARENCY),
    "PNG, strip": lambda: png(1, 65_535, RGBA, chunks=TURNED),
    "WebP, lossless": lambda: webp(5_400, 5_400),
    "WebP, lossy": lambda: images.encode(Image.new("RGB", (5_000, 5_000), "red"), "WEBP", method=0),
    "GIF, transparent": lambda: gif(10_000, 9_999),
    "BMP of run lengths": lambda: rle_bmp(4_700, 4_700),
    "BMP, 1 bit": lambda: bilevel_bmp(10_000, 9_999),
    "JPEG": lambda: jpeg(10_000, 9_999),
    "JPEG, wide": lambda: jpeg(65_500, 1_500),
    "JPEG, CMYK, wide": lambda: jpeg(65_500, 1_023, components=4, orientation=6),
    "JPEG, progressive": lambda: jpeg(8_500, 8_500, scans=5),
    "JPEG, progressive, many scans": lambda: jpeg(3_000, 3_000, scans=400),
}
