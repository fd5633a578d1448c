"""Pictures whose pixels are the same with every version of the libraries."""

import numpy as np
from PIL import Image

# Width, height and mode: landscape, portrait, odd sides, halves such as 384.5, tiny and narrow.
PICTURES = (
    (500, 375, "RGB"),
    (375, 500, "RGB"),
    (513, 342, "RGB"),
    (342, 513, "RGB"),
    (385, 257, "RGB"),
    (224, 224, "RGB"),
    (257, 900, "RGB"),
    (900, 61, "RGB"),
    (19, 13, "RGB"),
    (331, 250, "L"),
    (120, 97, "P"),
)


def picture(width: int, height: int, mode: str) -> Image.Image:
    """Return gradients with noise; of mode P, with a palette of 256 colours."""
    rng = np.random.default_rng(width * 1000 + height)
    channels = 3 if mode == "RGB" else 1
    across, down = np.arange(width)[None, :, None], np.arange(height)[:, None, None]
    slope = np.arange(1, channels + 1)
    noise = rng.integers(-60, 60, (height, width, channels))
    levels = (across * slope + down * (4 - slope)) % 256 + noise
    pixels = levels.clip(0, 255).astype(np.uint8)
    if mode != "P":
        return Image.fromarray(pixels if mode == "RGB" else pixels[:, :, 0])
    image = Image.fromarray(pixels[:, :, 0]).convert("P")
    image.putpalette(rng.integers(0, 256, 768).astype(np.uint8).tobytes())
    return image
