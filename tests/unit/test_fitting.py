"""The fields of a recipe that the preprocessing step honours."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts.repository.steps.preprocess import geometry, interpolation, resizing
from scripts.repository.steps.preprocess.imaging import load
from scripts.repository.steps.preprocess.recipe import (
    INTERPOLATIONS,
    RESIZE_MODES,
    ROUNDINGS,
    Recipe,
    Size,
    square,
)
from tests import images, patterns, reference
from tests.conftest import ROOT

Levels = np.ndarray[Any, np.dtype[np.int64]]
GREY: dict[str, Any] = {"colour": "grey", "mean": (0.5,), "std": (0.5,)}
ANTIALIASED = tuple(name for name in INTERPOLATIONS if name != "opencv")
SIZES = [(500, 375), (257, 700), (385, 257), (19, 13), (64, 64)]


def filled(mode: str) -> dict[str, Any]:
    """The colour around a letterboxed image."""
    return {"fill": (9, 99, 199)} if mode == "letterbox" else {}


def levels(data: bytes, recipe: Recipe) -> Levels:
    """Preprocess one image to grey levels [height, width, channels]."""
    picture = load(data, recipe)
    assert picture.mode == ("L" if recipe.colour == "grey" else "RGB")
    return np.asarray(picture).astype(np.int64).reshape(*recipe.crop, recipe.channels)


def exact(recipe: Recipe) -> Recipe:
    return replace(recipe, decoding="exact")


def assert_close(data: bytes, recipe: Recipe, *, most: int, mean: float) -> None:
    """Compare fast decoding with exact."""
    difference = np.abs(levels(data, recipe) - levels(data, exact(recipe)))
    assert difference.max() <= most
    assert difference.mean() <= mean


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize("sides", [((64, 64), (57, 57)), ((60, 80), (49, 64))])
def test_every_mode_and_rounding_equals_the_reference(
    sides: tuple[Size, Size], mode: str, rounding: str
) -> None:
    recipe = Recipe(*sides, mode=mode, rounding=rounding, **filled(mode))
    for width, height in SIZES:
        picture = patterns.picture(width, height, "RGB")
        ours = levels(images.encode(picture, "BMP"), exact(recipe))
        np.testing.assert_array_equal(ours, reference.picture(picture, recipe))


@pytest.mark.parametrize("name", ANTIALIASED)
def test_every_filter_equals_the_reference(name: str) -> None:
    recipe = square(64, 57, interpolation=name, decoding="exact")
    for width, height in SIZES:
        picture = patterns.picture(width, height, "RGB")
        ours = levels(images.encode(picture, "BMP"), recipe)
        np.testing.assert_array_equal(ours, reference.picture(picture, recipe))


@pytest.mark.parametrize("decoding", ["fast", "exact"])
@pytest.mark.parametrize("colour", [{}, GREY], ids=["rgb", "grey"])
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_interpolation_without_antialiasing_equals_the_reference(
    name: str, colour: dict[str, Any], decoding: str
) -> None:
    recipe = square(64, 57, interpolation=name, antialias=False, decoding=decoding, **colour)
    for width, height in SIZES[2:]:
        picture = patterns.picture(width, height, "RGB")
        difference = levels(images.encode(picture, "BMP"), recipe) - reference.picture(
            picture, recipe
        )
        assert np.abs(difference).max() <= 1  # the reference has more digits
        assert (difference != 0).mean() < 0.01


@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize("name", ANTIALIASED)
def test_fast_decoding_is_close_to_exact(name: str, mode: str) -> None:
    recipe = Recipe((60, 80), (49, 64), mode=mode, interpolation=name)
    # A box takes or leaves a pixel on its border as a rounding error decides.
    most = 100 if name == "box" else 16
    for picture in (images.photo(300, 451), images.photo(64, 500), images.photo(601, 400, "P")):
        assert_close(images.encode(picture, "BMP"), recipe, most=most, mean=1.2)


@pytest.mark.parametrize("name", ["bicubic", "lanczos", "hamming", "box"])
def test_large_jpeg_is_reduced_for_every_filter(name: str) -> None:
    data = images.encode(images.photo(1800, 1200), "JPEG", quality=90)
    assert_close(data, square(128, 112, interpolation=name), most=16, mean=1.2)


@pytest.mark.parametrize(
    "fields",
    [
        {"interpolation": "nearest"},
        {"antialias": False},
        {"interpolation": "opencv", "antialias": False},
    ],
)
def test_filters_of_single_pixels_need_the_whole_jpeg(fields: dict[str, Any]) -> None:
    data = images.encode(images.photo(900, 1200), "JPEG")
    assert_close(data, square(64, 57, **fields), most=0, mean=0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_turned_image_gets_the_same_pixels_as_an_upright_one(mode: str, orientation: int) -> None:
    recipe = Recipe((60, 80), (49, 64), mode=mode, rounding="torchvision", **filled(mode))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = patterns.picture(257, 180, "RGB")
    transpose, _ = geometry.UPRIGHT[orientation]
    upright = stored if transpose is None else stored.transpose(transpose)
    turned = images.encode(stored, exif=exif)
    np.testing.assert_array_equal(
        levels(turned, exact(recipe)), levels(images.encode(upright), exact(recipe))
    )
    assert_close(turned, recipe, most=2, mean=0.4)


def test_exact_decoding_of_a_jpeg_equals_pillows() -> None:
    data = images.encode(images.photo(1600, 1200), "JPEG")
    recipe = square(64, 57, decoding="exact", interpolation="bicubic")
    expected = reference.picture(reference.opened(data), recipe)
    np.testing.assert_array_equal(levels(data, recipe), expected)


def test_grey_is_converted_before_it_is_resized_if_exact() -> None:
    picture = patterns.picture(300, 200, "RGB")
    recipe = square(64, 57, **GREY)
    ours = levels(images.encode(picture, "BMP"), exact(recipe))
    np.testing.assert_array_equal(ours, reference.picture(picture, recipe))
    assert_close(images.encode(images.photo()), recipe, most=2, mean=0.5)


@pytest.mark.parametrize("decoding", ["fast", "exact"])
def test_grey_image_keeps_its_levels(decoding: str) -> None:
    grey = patterns.picture(57, 57, "L")
    recipe = square(57, 57, decoding=decoding, **GREY)
    ours = levels(images.encode(grey, "BMP"), recipe)
    np.testing.assert_array_equal(ours[:, :, 0], np.asarray(grey))


def test_blue_first_is_left_to_the_graph() -> None:
    data = images.encode(images.photo())
    np.testing.assert_array_equal(levels(data, Recipe(colour="bgr")), levels(data, Recipe()))


@pytest.mark.parametrize("decoding", ["fast", "exact"])
@pytest.mark.parametrize("size", [(1000, 1), (1, 1000), (1, 1)])
def test_strip_is_letterboxed_as_at_least_one_pixel(size: tuple[int, int], decoding: str) -> None:
    recipe = square(64, 64, mode="letterbox", fill=(9, 99, 199), decoding=decoding)
    ours = levels(images.encode(Image.new("RGB", size, "red")), recipe)
    is_red = (ours == (255, 0, 0)).all(axis=2)
    assert is_red.sum() == (64 if size != (1, 1) else 64 * 64)
    assert (ours[~is_red] == recipe.fill).all()


@pytest.mark.parametrize("fields", [{}, {"antialias": False, "interpolation": "bicubic"}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_bands_of_any_height_give_the_same_picture(
    mode: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = images.encode(images.photo(301, 200, mode=mode))
    recipe = square(64, 57, decoding="exact", **fields)
    whole = levels(data, recipe)
    monkeypatch.setattr(resizing, "LEAST_ROWS", 3)
    for module in (resizing, interpolation):
        monkeypatch.setattr(module, "BAND_PIXELS", 1000)
    np.testing.assert_array_equal(levels(data, recipe), whole)


def test_transparent_pixels_are_white_in_both_decodings() -> None:
    image = images.photo(mode="RGBA")
    image.putalpha(Image.radial_gradient("L").resize(image.size))
    assert_close(images.encode(image), square(64, 57), most=2, mean=0.4)


@pytest.mark.parametrize(
    ("rounding", "resized", "first"),
    [("zoo", 385, 80), ("torchvision", 384, 80), ("transformers", 384, 80)],
)
def test_half_pixels_are_rounded_as_the_library_does(
    rounding: str, resized: int, first: int
) -> None:
    fit = geometry.fit((300, 451), Recipe(rounding=rounding))
    assert (fit.resized, fit.kept[0]) == ((256, resized), first)


@pytest.mark.parametrize(
    ("rounding", "places"),
    [("zoo", (1, 2, 2)), ("torchvision", (1, 2, 2)), ("transformers", (2, 2, 3))],
)
def test_padding_is_divided_as_the_library_does(
    rounding: str, places: tuple[int, int, int]
) -> None:
    recipes = (Recipe((8, 4), (8, crop), mode="letterbox", rounding=rounding) for crop in (7, 8, 9))
    assert tuple(geometry.fit((8, 4), recipe).place[0] for recipe in recipes) == places


# By 7/5, 5/3 and 3, where pixels of the source and of the result have the same centres.
ENLARGE = """
from PIL import Image
from scripts.repository.steps.preprocess.resizing import resize

CASES = ((360, 288, 540 / 7, 7 / 5), (172, 224, 31.2, 5 / 3), (135, 320, 43 / 3, 3))
for width, side, left, scale in CASES:
    box = (left, 0, left + side / scale, side / scale)
    resize(Image.new("RGB", (width, 300)), (side, side), box, "bicubic")
"""


def test_a_picture_that_is_enlarged_does_not_end_the_process() -> None:
    subprocess.run([sys.executable, "-c", ENLARGE], cwd=ROOT, check=True)
