"""Images for the tests: the sample photograph in all sizes and formats, and broken files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from client import SAMPLE

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
BROKEN = {
    "nothing": b"",
    "text": b"this is not an image",
    "half a JPEG": SAMPLE.read_bytes()[:9000],
    "a PNG's head": b"\x89PNG\r\n\x1a\n" + bytes(40),
    "an SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


def photo(width: int = 451, height: int = 300, mode: str = "RGB") -> Image.Image:
    return Image.open(SAMPLE).resize((width, height)).convert(mode)


def encode(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png_text(length: int) -> PngInfo:
    text = PngInfo()
    text.add_text("Comment", "x" * length)
    return text


def noise(width: int, height: int, seed: int) -> Image.Image:
    """A smooth coloured pattern that depends on the seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def mixed_sizes() -> list[bytes]:
    """Four different images: wide, tall, small and large, each in another format."""
    return [
        encode(photo(451, 300), "JPEG"),
        encode(noise(240, 420, seed=1), "PNG"),
        encode(photo(120, 90).transpose(Image.Transpose.FLIP_TOP_BOTTOM), "BMP"),
        encode(noise(900, 700, seed=2), "WEBP", lossless=True),
    ]


def fill(folder: Path, count: int) -> Path:
    """Write `count` small images into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        noise(48, 40, seed=number).save(folder / f"{number:03}.png")
    return folder
