"""The images on which a graph is calibrated, and compared with the FP32 graph."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scripts.repository.errors import BuildError
from scripts.repository.steps.preprocess.imaging import Busy, ImageError, decode, load
from scripts.repository.steps.preprocess.recipe import Recipe

Progress = Callable[[int, int], None]

# The formats that the preprocessing step decodes.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})

# With at least this many images, every fifth is held out: 20 or more for the comparison.
RECOMMENDED = 100
HOLD_OUT_EVERY = 5
# More images do not improve the ranges: 1,000 for calibration and 250 for the comparison.
MAX_IMAGES = 1250


@dataclass(frozen=True)
class Images:
    """Image files that can be decoded, for calibration and for the comparison with FP32.

    Both are the same files if there are too few. `sha256` is the SHA-256 over the SHA-256 of each
    file of `calibrate`, and `all_sha256` that over all files. `unreadable` has a line with the
    reason for each skipped file.
    """

    calibrate: tuple[Path, ...]
    compare: tuple[Path, ...]
    sha256: str
    all_sha256: str
    unreadable: tuple[str, ...] = ()

    @property
    def held_out(self) -> bool:
        """Whether the images of the comparison are excluded from calibration."""
        return self.calibrate != self.compare

    @property
    def all(self) -> tuple[Path, ...]:
        """All files, sorted by path."""
        return tuple(sorted({*self.calibrate, *self.compare}))


def read(folder: Path, *, progress: Progress | None = None) -> Images:
    """Find and decode the images in a folder and its subfolders, at most 1,250 evenly spaced ones.

    `progress` is called with the number of images decoded so far and their total.

    Raises:
        BuildError: no image can be decoded.
    """
    files = _images(folder)
    digests: dict[Path, bytes] = {}
    unreadable = []
    for done, file in enumerate(files, 1):
        try:
            digests[file] = _digest(file)
        except (ImageError, OSError) as error:
            unreadable.append(f"{file}: {getattr(error, 'strerror', None) or error}")
        if progress:
            progress(done, len(files))
    if not digests:
        raise BuildError(
            f"{folder} has no image that can be read; at least {RECOMMENDED} are recommended"
        )
    return _split(digests, tuple(unreadable))


def pixels(
    files: Sequence[Path], recipe: Recipe, *, progress: Progress | None = None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Load images one at a time as UINT8 pixels [1, height, width, channels].

    They are decoded exactly, so that the same images calibrate the same graph on every machine.
    `progress` is called with the number of images that were used so far and their total.

    Raises:
        BuildError: exact decoding of an image takes more than the limits.
    """
    exact = replace(recipe, decoding="exact")
    for done, file in enumerate(files, 1):
        try:
            image = load(file.read_bytes(), exact)
        except (ImageError, Busy) as error:
            raise BuildError(f"{file}: {error}; or remove it from the folder") from None
        yield np.asarray(image).reshape(1, *recipe.crop, recipe.channels)
        if progress:
            progress(done, len(files))


def _images(folder: Path) -> list[Path]:
    files = sorted(
        file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()
    )
    return files[:: math.ceil(len(files) / MAX_IMAGES) or 1]


def _digest(file: Path) -> bytes:
    data = file.read_bytes()
    decode(data)
    return hashlib.sha256(data).digest()


def _split(digests: dict[Path, bytes], unreadable: tuple[str, ...]) -> Images:
    files = tuple(digests)
    compare = files[::HOLD_OUT_EVERY] if len(files) >= RECOMMENDED else files
    calibrate = tuple(file for file in files if file not in set(compare)) or files
    return Images(
        calibrate, compare, _sha256(calibrate, digests), _sha256(files, digests), unreadable
    )


def _sha256(files: tuple[Path, ...], digests: dict[Path, bytes]) -> str:
    return hashlib.sha256(b"".join(digests[file] for file in files)).hexdigest()
