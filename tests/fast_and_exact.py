"""Measures how fast decoding differs from exact: `python -m tests.fast_and_exact FOLDER...`."""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from client import SAMPLE
from scripts.repository.steps.preprocess.imaging import load
from scripts.repository.steps.preprocess.limits import Limits
from scripts.repository.steps.preprocess.recipe import Recipe, square
from tests import images

GENERATED = 200
LIMITS = Limits(max_seconds=10, max_memory=1 << 30)
RECIPES = {
    "bilinear": square(256, 224),
    "bicubic": square(256, 224, interpolation="bicubic"),
    "lanczos": square(256, 224, interpolation="lanczos"),
    "box": square(256, 224, interpolation="box"),
    "hamming": square(256, 224, interpolation="hamming"),
    "nearest": square(256, 224, interpolation="nearest"),
    "bilinear, not antialiased": square(256, 224, antialias=False),
    "bicubic, not antialiased": square(256, 224, interpolation="bicubic", antialias=False),
    "bicubic, squash": square(224, 224, interpolation="bicubic", mode="squash"),
    "bicubic, letterbox": square(224, 224, interpolation="bicubic", mode="letterbox"),
    "bilinear, grey": square(256, 224, colour="grey", mean=(0.5,), std=(0.5,)),
}


def generated(count: int) -> list[bytes]:
    """JPEGs of the sample photograph and of patterns, from 64 pixels to 16 megapixels."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(count):
        pixels, proportion = np.exp(rng.uniform(np.log([6e4, 0.5]), np.log([1.6e7, 2]))).tolist()
        size = round((pixels * proportion) ** 0.5), round((pixels / proportion) ** 0.5)
        picture = images.photo(*size) if number % 2 else images.noise(*size, seed=number)
        options = {"quality": int(rng.integers(70, 97)), "subsampling": int(rng.integers(0, 3))}
        files.append(images.encode(picture, "JPEG", **options))
    return files


def differences(files: Sequence[bytes], recipe: Recipe) -> tuple[float, int, float]:
    """Return the mean and the largest difference in grey levels, and the mean signed one."""
    means, largest, signed = [], 0, []
    for file in files:
        both = [load(file, replace(recipe, decoding=name), LIMITS) for name in ("fast", "exact")]
        fast, exact = (np.asarray(picture).astype(int) for picture in both)
        means.append(float(np.abs(fast - exact).mean()))
        signed.append(float((fast - exact).mean()))
        largest = max(largest, int(np.abs(fast - exact).max()))
    return statistics.fmean(means), largest, statistics.fmean(signed)


def milliseconds(decode: Callable[[], object], seconds: float = 0.5) -> float:
    """Return the least processor time of one call."""
    times = []
    while not times or sum(times) < seconds:
        start = time.process_time()
        decode()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def main(arguments: Sequence[str]) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="tests.fast_and_exact", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="folders of photographs")
    parser.add_argument("--count", type=int, default=GENERATED, help="of generated JPEGs")
    options = parser.parse_args(arguments)
    photographs = [SAMPLE, *(file for folder in options.folders for file in folder.glob("*.jpg"))]
    sets = {
        "generated": generated(options.count),
        "photographs": [file.read_bytes() for file in photographs],
    }
    for name, files in sets.items():
        print(f"{len(files)} {name}: mean, largest and signed difference in grey levels")
        for kind, recipe in RECIPES.items():
            mean, largest, signed = differences(files, recipe)
            print(f"  {kind:26} {mean:6.2f} {largest:4} {signed:+.3f}")
    for size in ((500, 375), (1600, 1200), (4000, 3000)):
        file = images.encode(images.photo(*size), "JPEG", quality=90)
        print(f"{size[0]} x {size[1]}: milliseconds for fast and exact decoding")
        for kind, recipe in RECIPES.items():
            both = [replace(recipe, decoding=name) for name in ("fast", "exact")]
            times = [milliseconds(lambda each=each: load(file, each, LIMITS)) for each in both]  # type: ignore[misc]
            print(f"  {kind:26} {times[0]:7.2f} {times[1]:7.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
