"""Describes a built classifier: how it preprocesses, and where each part was said."""

from collections.abc import Iterable

from scripts.repository.graphs.engines import TITLES
from scripts.repository.manifest import Comparison, Entry
from scripts.repository.steps.preprocess.recipe import Recipe, is_square, written

ASSUMED = "assumed"
GEOMETRY = ("resize", "crop", "mode", "rounding", "interpolation", "antialias", "fill")
PIXELS = ("colour", "pixel_range", "mean", "std")
BATCHES = {
    "variable": "of any size",
    "loop": "image by image: the file fixes its batch size",
}
# What makes a precision fast.
NEEDED = {
    "fp16": "a GPU (--device gpu)",
    "bf16": "fast bfloat16 instructions, such as AMX",
    "int8": "VNNI instructions",
}


def line(name: str, entry: Entry) -> str:
    """Describe a classifier in one line."""
    recipe = entry.to_recipe()
    size = f"{written(recipe.resize)}/{written(recipe.crop)}"
    crops = f" and with {entry.crops} crops as {name}_10crop" if entry.crops > 1 else ""
    return (
        f"{name:13} {entry.classes} classes, recipe {size}{crops}, from {entry.source}{_run(entry)}"
    )


def gain(precision: str, engine: str, gains: dict[str, float], comparison: Comparison) -> str:
    """Say how fast a precision is on an engine, and how well it agrees with FP32.

    `gains` has how many times as fast it is as FP32 on each engine, on one thread.
    """
    faster = " and ".join(
        f"{ratio:.1f} times as fast as fp32 on {TITLES[other]}" for other, ratio in gains.items()
    )
    return (
        f"{precision} on {TITLES[engine]} is {faster} on one thread here, with "
        f"{_agreement(comparison)}"
    )


def agreement(precision: str, comparison: Comparison) -> str:
    """Say how well a precision agrees with FP32, where its speed cannot be measured."""
    return f"{precision} has {_agreement(comparison)}"


def _agreement(comparison: Comparison) -> str:
    return (
        f"the same top-1 class as fp32 for {comparison.agreeing} of {comparison.compared} "
        f"{comparison.images} and probabilities that differ by up to {comparison.difference:.4f}"
    )


def without_gain(precision: str, gains: dict[str, float]) -> str | None:
    """Say on which engines FP32 is as fast as another precision; None if it is slower on all.

    Ratios are rounded as `gain` prints them.
    """
    slow = " and ".join(
        f"fp32 on {TITLES[engine]}" for engine, ratio in gains.items() if round(ratio, 1) <= 1
    )
    if not slow:
        return None
    return f"{precision} is not faster than {slow} on this CPU; it needs {NEEDED[precision]}"


def _run(entry: Entry) -> str:
    """Say how the graphs are run, if not in FP32 by onnxruntime, and where images are decoded."""
    is_default = (entry.precision, entry.engine, entry.choice) == ("fp32", "onnxruntime", None)
    text = "" if is_default else f", {entry.precision} on {TITLES[entry.engine]}"
    if entry.choice:
        text += f" (OpenVINO is {entry.choice.ratio:.2f} times as fast as onnxruntime)"
    if entry.preprocess == "gpu":
        text += ", preprocessing on the GPU"
    return text


def details(entry: Entry) -> list[str]:
    """Describe what was said or assumed about a user's own classifier, a line for each part."""
    recipe, origins = entry.to_recipe(), entry.origins
    return [
        f"size    {_geometry(recipe)} [{_origin(GEOMETRY, origins)}]",
        f"pixels  {pixels(recipe)} [{_origin(PIXELS, origins)}]",
        f"labels  {entry.labels_origin}",
        f"scores  {entry.scores}, output {entry.output} [{origins.get('scores', ASSUMED)}]",
        f"batches {BATCHES[entry.batches]}; {_difference(entry)}",
    ]


def assumed(entry: Entry) -> list[str]:
    """List which of mean and std nothing said about a user's own classifier."""
    return [field for field in ("mean", "std") if field not in entry.origins]


def _geometry(recipe: Recipe) -> str:
    antialias = "" if recipe.antialias else " without antialiasing"
    return (
        f"{_resized(recipe)}, crop {written(recipe.crop)}, "
        f"{recipe.interpolation}{antialias}, {recipe.rounding} rounding, {recipe.decoding} decoding"
    )


def _resized(recipe: Recipe) -> str:
    size = written(recipe.resize)
    if recipe.mode == "letterbox":
        return f"padded to {size} with {_numbers(recipe.fill)}"
    if recipe.mode == "squash":
        return f"squashed to {size}"
    return f"shorter side to {size}" if is_square(recipe.resize) else f"covering {size}"


def pixels(recipe: Recipe) -> str:
    """Describe the values that a graph takes."""
    black, white = recipe.pixel_range
    text = f"{recipe.colour.upper()} {black:g}..{white:g}"
    if set(recipe.mean) == {0} and set(recipe.std) == {1}:
        return text
    return f"{text}, mean {_numbers(recipe.mean)}, std {_numbers(recipe.std)}"


def _difference(entry: Entry) -> str:
    return f"largest difference {entry.difference:.0e}" if entry.difference else "no difference"


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _origin(fields: Iterable[str], origins: dict[str, str]) -> str:
    """Name the sources of some fields; what none of them says is assumed."""
    return ", ".join(dict.fromkeys(origins.get(field, ASSUMED) for field in fields))
