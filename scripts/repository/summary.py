"""Describes a built classifier: how it preprocesses, and where each part was said."""

import json
from collections.abc import Iterable

from scripts.repository.manifest import Entry
from scripts.repository.steps.preprocess.recipe import Recipe, is_square, written

ASSUMED = "assumed"
GEOMETRY = ("resize", "crop", "mode", "rounding", "interpolation", "antialias", "fill")
PIXELS = ("colour", "pixel_range", "mean", "std")
BATCHES = {
    "variable": "of any size",
    "loop": "image by image: the file fixes its batch size",
}


def line(name: str, entry: Entry) -> str:
    """Describe a classifier in one line."""
    recipe = _recipe(entry)
    size = f"{written(recipe.resize)}/{written(recipe.crop)}"
    return f"{name:13} {entry.classes} classes, recipe {size}, from {entry.source}"


def details(entry: Entry) -> list[str]:
    """Describe what was said or assumed about a user's own classifier, a line for each part."""
    recipe, origins = _recipe(entry), entry.origins
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


def _recipe(entry: Entry) -> Recipe:
    return Recipe.from_json(json.dumps(entry.recipe))


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
