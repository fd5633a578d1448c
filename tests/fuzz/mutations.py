"""Files to start from, and random changes of them."""

import base64
import random
import struct
import zlib
from functools import cache

from tests import bombs, images

BYTES = (b"\0", b"\1", b"\x7f", b"\x80", b"\xff", b"\0\0\0\0", b"\xff\xff")
MARKERS = (b"\xff\xd9", b"\xff\xda", b"IDAT", b"tRNS", b"VP8X")


@cache
def seeds() -> dict[str, bytes]:
    """Small files of every kind that the step decodes."""
    photo = images.photo(48, 40)
    exif = b"Exif\0\0" + bombs.exif(6)
    files = {
        "JPEG": images.encode(photo, "JPEG", exif=exif),
        "progressive JPEG": images.encode(photo, "JPEG", progressive=True, comment=b"a comment"),
        "grey JPEG": images.encode(photo.convert("L"), "JPEG"),
        "CMYK JPEG": images.encode(photo.convert("CMYK"), "JPEG"),
        "GIF": images.encode(photo.convert("P"), "GIF", transparency=3, comment=b"a comment"),
        "animated GIF": images.encode(
            photo, "GIF", save_all=True, append_images=[photo.rotate(90)], disposal=2
        ),
        "lossy WebP": images.encode(photo, "WEBP", exif=exif),
        "lossless WebP": images.encode(photo.convert("RGBA"), "WEBP", lossless=True),
        "animated WebP": images.encode(
            photo, "WEBP", save_all=True, append_images=[photo.rotate(90)]
        ),
        "BMP": images.encode(photo, "BMP"),
        "BMP with a palette": images.encode(photo.convert("P"), "BMP"),
        "BMP of run lengths": bombs.rle_bmp(40, 30),
        "interlaced PNG": bombs.png(40, 30, bombs.RGBA, depth=16, is_interlaced=True),
        "16-bit PNG": bombs.png(
            40, 30, bombs.RGB, depth=16, chunks=bombs.chunk(b"tRNS", bytes(6)) + bombs.TURNED
        ),
        "4-bit PNG": bombs.png(40, 30, bombs.GREY, depth=4, chunks=bombs.chunk(b"tRNS", bytes(2))),
    }
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        files[f"{mode} PNG"] = images.encode(photo.convert(mode), "PNG", exif=exif)
    files["base64"] = base64.b64encode(files["JPEG"])
    files["data URL"] = b"data:image/png;base64," + base64.b64encode(files["L PNG"])
    return files


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Change one to eight places of a file: bytes, lengths, copies, cuts and parts of others."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(changed) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            changed[place : place + 1] = rng.randbytes(1)
        elif kind == 1:
            value = rng.choice(BYTES + MARKERS)
            changed[place : place + len(value)] = value
        elif kind == 2:
            changed[place:place] = changed[place : place + rng.randrange(200)]
        elif kind == 3:
            del changed[place : place + rng.randrange(1, 200)]
        elif kind == 4:
            other = rng.choice(list(seeds().values()))
            start = rng.randrange(len(other))
            changed[place : place + 1] = other[start : start + rng.randrange(64)]
        else:
            changed[place : place + 4] = struct.pack(rng.choice("<>") + "I", rng.randrange(1 << 17))
    return with_checksums(bytes(changed)) if rng.random() < 0.7 else bytes(changed)


def with_checksums(data: bytes) -> bytes:
    """Correct the checksums of a PNG's chunks, so that its decoder reads what was changed."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    corrected = bytearray(data)
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if end + 4 <= len(data):
            struct.pack_into(">I", corrected, end, zlib.crc32(data[position + 4 : end]))
        position = end + 4
    return bytes(corrected)
