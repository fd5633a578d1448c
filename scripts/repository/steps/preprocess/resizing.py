"""Resizes pictures: a part quickly, or the whole as every Pillow before 13 does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from .geometry import Box, Fit, enclosing
from .recipe import Size

try:
    from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
except ImportError:  # its wheels are for x86-64
    IS_FAST = False
else:
    IS_FAST = True
    SIMD_FILTERS = {
        "bilinear": FilterType.bilinear,
        "bicubic": FilterType.catmull_rom,  # the same cubic: a is -0.5
        "lanczos": FilterType.lanczos3,
        "box": FilterType.box,
    }

# A picture is resized in bands of about so many pixels, but of at least so many rows, since Pillow
# computes the weights anew for each band.
BAND_PIXELS = 1 << 18
LEAST_ROWS = 64

# How many pixels on either side a filter covers, in pixels of the smaller of source and result.
SUPPORT = {
    "nearest": 0.5,
    "box": 0.5,
    "bilinear": 1,
    "hamming": 1,
    "opencv": 1,
    "bicubic": 2,
    "lanczos": 3,
}

Resize = Callable[[Image.Image, Size, Box, str], Image.Image]


@dataclass(frozen=True)
class Source:
    """An upright picture whose rows are made when they are needed.

    Attributes:
        size: height and width.
        mode: RGB or L.
        rows: gives the rows from one to before another.
    """

    size: Size
    mode: str
    rows: Callable[[int, int], Image.Image]


def resize(image: Image.Image, size: Size, box: Box, interpolation: str) -> Image.Image:
    """Resize a part of an RGB image to a size with one of Pillow's filters.

    If cykooz-resizer is installed and has the filter, it uses SIMD instructions and takes a sixth
    of the time; the result differs from Pillow's by at most two grey levels for most pictures.
    """
    if IS_FAST and interpolation in SIMD_FILTERS and not _crashes(size, box, interpolation):
        return _with_simd(image, size, box, interpolation)
    return with_pillow(image, size, box, interpolation)


def _crashes(size: Size, box: Box, interpolation: str) -> bool:
    """Tell whether cykooz-resizer 4.0.1 may read outside of the image and end the process.

    It does where bicubic weights are exactly 0, that is, where the centre of an enlarged pixel lies
    on that of a source pixel.
    """
    left, top, right, bottom = box
    return interpolation == "bicubic" and (bottom - top < size[0] or right - left < size[1])


def with_pillow(image: Image.Image, size: Size, box: Box, interpolation: str) -> Image.Image:
    """Resize with Pillow only."""
    return image.resize(size[::-1], _pillow_filter(interpolation), box)


def _with_simd(image: Image.Image, size: Size, box: Box, interpolation: str) -> Image.Image:
    left, top, right, bottom = box
    options = ResizeOptions(
        resize_alg=ResizeAlg.convolution(SIMD_FILTERS[interpolation]),
        crop_box=CropBox(left, top, right - left, bottom - top),
    )
    resized = Image.new("RGB", size[::-1], None)  # not filled
    Resizer().resize_pil(image, resized, options)
    return resized


def _pillow_filter(interpolation: str) -> Image.Resampling:
    return Image.Resampling[interpolation.upper()]


def band_rows(size: Size, fit: Fit) -> int:
    """Return how many rows of an upright picture of this size `whole` resizes at a time."""
    return min(size[0], max(LEAST_ROWS, BAND_PIXELS // max(size[1], fit.resized[1])))


def whole(source: Source, fits: Sequence[Fit], interpolation: str) -> list[Image.Image]:
    """Resize a whole picture with Pillow and keep parts of it.

    Each row is resized first, then each column, which is the order of all versions of Pillow; but
    Pillow 12.2 and later exchange it for very tall pictures, and Pillow 13 for some tall ones.
    Rows are independent of each other, so that they are resized in bands.

    Args:
        source: the picture.
        fits: the parts; all have the same size of the whole.
        interpolation: a filter of Pillow.

    Returns:
        An image of the size `Fit.kept_size` for each part.
    """
    height, _ = source.size
    resized_height, resized_width = fits[0].resized
    left, _, right, _ = enclosing(fit.kept for fit in fits)
    method = _pillow_filter(interpolation)
    narrow = Image.new(source.mode, (right - left, height))
    step = band_rows(source.size, fits[0])
    for start in range(0, height, step):
        band = source.rows(start, min(start + step, height))
        resized = band.resize((resized_width, band.height), method)
        narrow.paste(resized.crop((left, 0, right, band.height)), (0, start))
    resized = narrow.resize((right - left, resized_height), method)
    sides = (fit.kept for fit in fits)
    return [
        resized.crop((first - left, top, last - left, bottom)) for first, top, last, bottom in sides
    ]
