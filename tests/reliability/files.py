"""Files as strangers send them: odd valid images, and mutations of image files."""

import io
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from PIL import Image

from client import Classification, Classifier, ImageFile, InvalidImage, Prediction
from tests import images
from tests.fuzz import mutations

# What a message must not show: paths on the server, tracebacks, several lines.
LEAK = re.compile(r"(/[\w.-]+){2}|Traceback|\.py\b|\n")
MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16")
GOOD = "good"
Expected = Mapping[str, tuple[Prediction, ...]]


@cache
def good_images() -> tuple[ImageFile, ...]:
    """Small photographs whose answers are compared with their first one."""
    files = [images.encode(images.photo(64 + n, 48), kind) for n, kind in enumerate(images.FORMATS)]
    return tuple(ImageFile(f"{GOOD} {number}", data) for number, data in enumerate(files))


@cache
def odd_images() -> Mapping[str, bytes]:
    """Valid images of unusual kinds, each of which must be classified."""
    found: dict[str, bytes] = {}
    for mode in MODES:
        image = images.photo(90, 60, "L" if mode == "I;16" else "RGB").convert(mode)
        for kind in images.FORMATS:
            _add(found, f"{kind} in mode {mode}", image, kind)
    photo = images.photo(90, 60)
    for size in ((1, 1), (1, 500), (500, 1), (3000, 20)):
        for kind in images.FORMATS:
            _add(found, f"{kind} of {size[0]} x {size[1]}", photo.resize(size), kind)
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind in ("JPEG", "PNG", "WEBP"):
            _add(found, f"{kind} with orientation {orientation}", photo, kind, exif=exif)
    for progressive in (False, True):
        for sampling in range(3):
            options = {"progressive": progressive, "subsampling": sampling, "quality": 100}
            _add(found, f"JPEG {options}", photo, "JPEG", **options)
    others = [images.noise(90, 60, seed) for seed in range(3)]
    for kind in ("GIF", "WEBP", "PNG"):
        _add(found, f"animated {kind}", photo, kind, save_all=True, append_images=others)
    return found


def _add(found: dict[str, bytes], name: str, image: Image.Image, kind: str, **options: Any) -> None:
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, **options)
    except (OSError, ValueError):
        return  # the format does not have this mode
    found[name] = buffer.getvalue()


def mutated(seed: int) -> bytes:
    """Change an odd image or one of the fuzzer's seeds at random."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    originals = [*odd_images().values(), *mutations.seeds().values()]
    return mutations.mutated(rng.choice(originals), rng)


def with_good_images(files: Iterable[ImageFile], *, every: int) -> Iterator[ImageFile]:
    """Put a good image before every so many files."""
    good = good_images()
    for number, file in enumerate(files):
        if number % every == 0:
            yield good[number // every % len(good)]
        yield file


def expected_answers(classifier: Classifier) -> Expected:
    return {each.name: classifier.image(each).predictions for each in good_images()}


@dataclass
class Tally:
    """Counts answers and refusals, and every other outcome as a problem."""

    expected: Expected
    answered: int = 0
    refused: int = 0
    good: int = 0
    problems: Counter[str] = field(default_factory=Counter)

    def add(self, result: Classification) -> None:
        is_good = result.source.startswith(GOOD)
        self.good += is_good
        if is_good and (result.error or result.predictions != self.expected[result.source]):
            self.problems[f"{result.source}: {result.error or 'another answer'}"] += 1
        elif result.error is None:
            self.answered += not is_good
        elif not isinstance(result.error, InvalidImage):
            self.problems[f"{type(result.error).__name__}: {result.error}"] += 1
        elif LEAK.search(str(result.error)):
            self.problems[f"unclear refusal: {result.error}"] += 1
        else:
            self.refused += 1

    def __str__(self) -> str:
        wrong = sum(self.problems.values())
        between = f"; {self.good:,} good images in between" if self.good else ""
        return f"{self.answered:,} answered, {self.refused:,} refused, {wrong:,} wrong{between}"

    def found(self) -> tuple[str, ...]:
        """Describe the most frequent problems."""
        return tuple(f"{count:,} times {text}" for text, count in self.problems.most_common(5))
