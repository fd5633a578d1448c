"""The images that an INT8 graph is calibrated on, and those that it is compared with FP32 on."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scripts.repository.errors import BuildError
from scripts.repository.steps.preprocess.imaging import ImageError, decode, load
from scripts.repository.steps.preprocess.recipe import Recipe

Progress = Callable[[int, int], None]

# Those of the formats that the preprocessing step decodes.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})

# From so many images on each fifth is held out, which leaves 20 or more to compare on.
ENOUGH = 100
FIFTH = 5
# More make no range better: 1,000 to calibrate on and 250 to compare on, evenly spaced.
MOST = 1250


@dataclass(frozen=True)
class Images:
    """Files that can be decoded: those to calibrate on, and those to compare with FP32 on.

    Both are the same where there are too few. `sha256` is over those to calibrate on, and
    `unreadable` says of each image that was left out why.
    """

    calibrate: tuple[Path, ...]
    compare: tuple[Path, ...]
    sha256: str
    unreadable: tuple[str, ...] = ()

    @property
    def held_out(self) -> bool:
        """Whether none of the images to compare on is calibrated on."""
        return self.calibrate != self.compare


def read(folder: Path, *, progress: Progress | None = None) -> Images:
    """Find and try the images in a folder and below, 1,250 of them at most.

    `progress` is called with the number of images tried and of all.

    Raises:
        BuildError: none of them can be read.
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
            f"{folder} has no image that can be read; take {ENOUGH} or more like those to classify"
        )
    return _split(digests, tuple(unreadable))


def pixels(files: Iterable[Path], recipe: Recipe) -> Iterator[npt.NDArray[np.float32]]:
    """Make each image what a classifier takes, FP32 [1, 3, crop, crop], as it is asked for."""
    for file in files:
        pixels = np.asarray(load(file.read_bytes(), recipe))
        yield (
            ((pixels / 255 - recipe.mean) / recipe.std).transpose(2, 0, 1)[None].astype(np.float32)
        )


def _images(folder: Path) -> list[Path]:
    files = sorted(
        file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()
    )
    return files[:: math.ceil(len(files) / MOST) or 1]


def _digest(file: Path) -> bytes:
    data = file.read_bytes()
    decode(data)
    return hashlib.sha256(data).digest()


def _split(digests: dict[Path, bytes], unreadable: tuple[str, ...]) -> Images:
    files = tuple(digests)
    compare = files[::FIFTH] if len(files) >= ENOUGH else files
    calibrate = tuple(file for file in files if file not in set(compare)) or files
    sha256 = hashlib.sha256(b"".join(digests[file] for file in calibrate)).hexdigest()
    return Images(calibrate, compare, sha256, unreadable)
