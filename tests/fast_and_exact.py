"""Measures how fast decoding differs from exact: `python -m tests.fast_and_exact FOLDER...`."""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from client import SAMPLE
from scripts.repository import onnx_file
from scripts.repository.graphs.pixels import INPUT, with_pixels
from scripts.repository.graphs.prepare import prepare
from scripts.repository.steps.postprocess.ranking import best, softmax
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
    "opencv": square(256, 224, interpolation="opencv", antialias=False),
    "bicubic, squash": square(224, 224, interpolation="bicubic", mode="squash"),
    "bicubic, letterbox": square(224, 224, interpolation="bicubic", mode="letterbox"),
    "bilinear, grey": square(256, 224, colour="grey", mean=(0.5,), std=(0.5,)),
}


def generated(count: int) -> list[bytes]:
    """JPEGs from 60,000 pixels to 16 megapixels: a photograph, with noise, and sharp squares."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(count):
        pixels, proportion = np.exp(rng.uniform(np.log([6e4, 0.5]), np.log([1.6e7, 2]))).tolist()
        size = round((pixels * proportion) ** 0.5), round((pixels / proportion) ** 0.5)
        picture = (images.photo, noisy, squares)[number % 3](*size)
        options = {"quality": int(rng.integers(70, 97)), "subsampling": int(rng.integers(0, 3))}
        files.append(images.encode(picture, "JPEG", **options))
    return files


def noisy(width: int, height: int) -> Image.Image:
    """The sample photograph with the noise of a small sensor."""
    noise = np.random.default_rng(width).normal(0, 12, (height, width, 3))
    levels = np.asarray(images.photo(width, height)) + noise
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def squares(width: int, height: int) -> Image.Image:
    """Squares of all colours and of 7 pixels, as sharp as printed text."""
    rng = np.random.default_rng(width)
    colours = rng.integers(0, 256, (height // 7 + 1, width // 7 + 1, 3), dtype=np.uint8)
    return Image.fromarray(colours.repeat(7, 0).repeat(7, 1)[:height, :width])


def differences(files: Sequence[bytes], recipe: Recipe) -> tuple[float, int]:
    """Return the mean and the largest difference in grey levels."""
    means, largest = [], 0
    for file in files:
        both = [load(file, replace(recipe, decoding=name), LIMITS) for name in ("fast", "exact")]
        fast, exact = (np.asarray(picture).astype(int) for picture in both)
        difference = np.abs(fast - exact)
        means.append(float(difference.mean()))
        largest = max(largest, int(difference.max()))
    return statistics.fmean(means), largest


def agreement(files: Sequence[bytes], classifier: Path) -> str:
    """Compare the predictions of an ImageNet classifier in fast and in exact decoding."""
    recipe = RECIPES["bilinear"]
    graph = with_pixels(prepare(onnx_file.read(classifier).model, size=recipe.crop), recipe)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    same_class = same_order = 0
    largest = 0.0
    for file in files:
        both = [load(file, replace(recipe, decoding=name), LIMITS) for name in ("fast", "exact")]
        pixels = np.stack([np.asarray(picture) for picture in both])
        fast, exact = (softmax(row) for row in session.run(None, {INPUT: pixels})[0])
        orders = [best(row, 5).tolist() for row in (fast, exact)]
        same_class += orders[0][0] == orders[1][0]
        same_order += orders[0] == orders[1]
        largest = max(largest, float(np.abs(fast - exact).max()))
    return (
        f"  {classifier.name}: same class for {same_class / len(files):.1%}, same five in order "
        f"for {same_order / len(files):.1%}, probabilities differ by up to {largest:.3f}"
    )


def milliseconds(decode: Callable[[], object], seconds: float = 0.5) -> float:
    """Return the least processor time of one call."""
    times: list[float] = []
    while not times or sum(times) < seconds:
        start = time.process_time()
        decode()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def report(folders: Sequence[Path], count: int, classifiers: Sequence[Path]) -> Iterator[str]:
    """Yield the lines of the report."""
    photographs = [SAMPLE, *(file for folder in folders for file in sorted(folder.glob("*.jpg")))]
    sets = {
        "generated": generated(count),
        "photographs": [file.read_bytes() for file in photographs],
    }
    for name, files in sets.items():
        yield f"{len(files)} {name}: mean and largest difference in grey levels"
        for kind, recipe in RECIPES.items():
            mean, largest = differences(files, recipe)
            yield f"  {kind:26} {mean:6.2f} {largest:4}"
        for classifier in classifiers:
            yield agreement(files, classifier)
    for size in ((500, 375), (4000, 3000)):
        file = images.encode(images.photo(*size), "JPEG", quality=90)
        yield f"{size[0]} x {size[1]}: milliseconds of fast and of exact decoding"
        for kind, recipe in RECIPES.items():
            both = [replace(recipe, decoding=name) for name in ("fast", "exact")]
            times = [milliseconds(functools.partial(load, file, each, LIMITS)) for each in both]
            yield f"  {kind:26} {times[0]:6.1f} {times[1]:6.1f}"


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(prog="tests.fast_and_exact", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="folders of photographs")
    parser.add_argument("--count", type=int, default=GENERATED, help="of generated JPEGs")
    parser.add_argument(
        "--onnx", nargs="*", default=[], type=Path, help="ImageNet classifiers to compare"
    )
    options = parser.parse_args()
    for line in report(options.folders, options.count, options.onnx):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
