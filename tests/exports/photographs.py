"""Draws the photographs: PNG files, since decoders of JPEG differ by a grey level."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

FOLDER = Path(__file__).with_name("photographs")
# Width and height: resizing the short side leaves half pixels for the rounding rules to decide.
SIZES = {"harbour.png": (331, 223), "tower.png": (149, 257)}
SHAPES = 40


def draw() -> None:
    """Write the photographs."""
    for seed, (name, size) in enumerate(SIZES.items()):
        _image(seed, size).save(FOLDER / name, optimize=True)


def _image(seed: int, size: tuple[int, int]) -> Image.Image:
    """Draw a gradient, shapes of all sizes, and stripes, which show each filter's differences."""
    rng = np.random.default_rng(seed)
    width, height = size
    image = Image.linear_gradient("L").resize(size).convert("RGB")
    draw = ImageDraw.Draw(image)
    for number in range(SHAPES):
        left, top = rng.integers(-10, width), rng.integers(-10, height)
        right, bottom = left + rng.integers(4, width // 2), top + rng.integers(4, height // 2)
        box = [int(left), int(top), int(right), int(bottom)]
        colour = tuple(int(level) for level in rng.integers(0, 256, 3))
        (draw.ellipse if number % 2 else draw.rectangle)(box, fill=colour)
    for stripe in range(0, height // 3, 3):
        draw.line([(0, height - stripe), (width // 2, height - stripe)], fill=(250, 240, 20))
    return image
