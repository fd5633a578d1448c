"""Ten crops of an image: where they are, what they show, what they take."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts.repository.steps.postprocess.ranking import mean, softmax
from scripts.repository.steps.preprocess import cost
from scripts.repository.steps.preprocess.imaging import ImageError, load, load_crops
from scripts.repository.steps.preprocess.limits import Limits
from scripts.repository.steps.preprocess.recipe import (
    ROUNDINGS,
    Recipe,
    Size,
    check_crops,
    square,
)
from tests import bombs, images, patterns, reference

Levels = np.ndarray[Any, np.dtype[np.int64]]
GREY: dict[str, Any] = {"colour": "grey", "mean": (0.5,), "std": (0.5,)}
CENTRE, MIRRORED_CENTRE = 4, 9
# Odd and even margins on both sides, none, and enlarged.
SIZES = [(500, 375), (257, 700), (385, 257), (19, 13), (64, 64)]


def levels(data: bytes, recipe: Recipe, crops: int = 10) -> Levels:
    """Preprocess one image to grey levels [crops, height, width, channels]."""
    pictures = load_crops(data, recipe, crops)
    stacked = np.stack([np.asarray(picture, np.int64) for picture in pictures])
    return stacked.reshape(crops, *recipe.crop, recipe.channels)


def expected(picture: Image.Image, recipe: Recipe) -> Levels:
    """Resize a whole picture, and crop it as torchvision's FiveCrop does, also mirrored."""
    size = reference.resized(picture.height, picture.width, recipe)
    whole = reference.picture(picture, replace(recipe, mode="squash", resize=size, crop=size))
    return np.stack([*five_crops(whole, recipe), *five_crops(whole[:, ::-1], recipe)])


def five_crops(whole: Levels, recipe: Recipe) -> list[Levels]:
    tall, wide = recipe.crop
    height, width, _ = whole.shape
    top = reference.start(height, tall, recipe.rounding)
    left = reference.start(width, wide, recipe.rounding)
    return [
        whole[:tall, :wide],
        whole[:tall, width - wide :],
        whole[height - tall :, :wide],
        whole[height - tall :, width - wide :],
        whole[top : top + tall, left : left + wide],
    ]


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("fields", [{}, GREY, {"mode": "squash"}], ids=["rgb", "grey", "squash"])
@pytest.mark.parametrize("sides", [((64, 64), (57, 57)), ((60, 80), (49, 64))])
def test_ten_crops_are_those_of_torchvision(
    sides: tuple[Size, Size], fields: dict[str, Any], rounding: str
) -> None:
    recipe = Recipe(*sides, rounding=rounding, decoding="exact", **fields)
    for width, height in SIZES:
        picture = patterns.picture(width, height, "RGB")
        ours = levels(images.encode(picture, "BMP"), recipe)
        np.testing.assert_array_equal(ours, expected(picture, recipe))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_ten_crops_without_antialiasing_equal_the_reference(interpolation: str) -> None:
    recipe = square(64, 57, interpolation=interpolation, antialias=False)
    for width, height in SIZES[2:]:
        picture = patterns.picture(width, height, "RGB")
        difference = levels(images.encode(picture, "BMP"), recipe) - expected(picture, recipe)
        assert np.abs(difference).max() <= (interpolation != "nearest")
        assert (difference != 0).mean() < 0.01  # the reference has more digits


def test_the_mirrored_centre_can_lie_a_pixel_beside_the_centre() -> None:
    picture = images.noise(101, 64, seed=1)
    ours = levels(images.encode(picture), square(64, 64, decoding="exact"))
    assert not np.array_equal(ours[MIRRORED_CENTRE], ours[CENTRE, :, ::-1])
    mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    np.testing.assert_array_equal(
        ours[MIRRORED_CENTRE],
        np.asarray(load(images.encode(mirrored), square(64, 64, decoding="exact"))),
    )


FILES = {
    "photograph": lambda: images.encode(images.photo(451, 300), "JPEG"),
    "reduced JPEG": lambda: images.encode(images.photo(1600, 1200), "JPEG"),
    "palette": lambda: images.encode(images.photo(700, 500, "P"), "GIF"),
    "transparent": lambda: images.encode(images.photo(601, 400, "RGBA")),
    "panorama": lambda: images.encode(images.noise(3000, 90, seed=2)),
    "small": lambda: images.encode(images.photo(40, 30)),
}


@pytest.mark.parametrize("decoding", ["fast", "exact"])
@pytest.mark.parametrize("fields", [{}, GREY, {"antialias": False}], ids=["rgb", "grey", "plain"])
@pytest.mark.parametrize("name", FILES)
def test_the_centre_is_the_recipe_s_own_crop(
    name: str, fields: dict[str, Any], decoding: str
) -> None:
    data, recipe = FILES[name](), square(128, 112, decoding=decoding, **fields)
    (alone,) = levels(data, recipe, crops=1)
    np.testing.assert_array_equal(levels(data, recipe)[CENTRE], alone)


@pytest.mark.parametrize("name", FILES)
def test_fast_crops_are_close_to_exact_ones(name: str) -> None:
    data = FILES[name]()
    fast, exact = (levels(data, square(128, 112, decoding=each)) for each in ("fast", "exact"))
    difference = np.abs(fast - exact)
    assert difference.max() <= 16
    assert difference.mean(axis=(1, 2, 3)).max() <= 1.2


@pytest.mark.parametrize("decoding", ["fast", "exact"])
def test_corners_are_those_of_the_upright_picture(decoding: str) -> None:
    upright = patterns.picture(257, 180, "RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its left side
    turned = images.encode(upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    recipe = square(64, 57, decoding=decoding)
    difference = levels(turned, recipe) - levels(images.encode(upright), recipe)
    assert np.abs(difference).max() <= (0 if decoding == "exact" else 2)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (square(256, 224, mode="letterbox"), "not for the mode letterbox, which pads them"),
        (square(224, 224, mode="squash"), "every picture is squashed to the crop's 224 pixels"),
    ],
)
def test_crops_that_are_equal_or_padded_are_refused(recipe: Recipe, message: str) -> None:
    check_crops(recipe, 1)
    with pytest.raises(ValueError, match=message):
        check_crops(recipe, 10)


@pytest.mark.parametrize(
    "recipe",
    [Recipe(), square(224, 224), Recipe((224, 256), (224, 224), mode="squash")],
)
def test_crops_that_differ_for_some_pictures_are_accepted(recipe: Recipe) -> None:
    check_crops(recipe, 10)


@pytest.mark.parametrize(
    "recipe",
    [
        square(256, 224),
        square(256, 224, decoding="exact", interpolation="lanczos"),
        square(256, 224, antialias=False),
        square(256, 224, antialias=False, interpolation="nearest"),
    ],
)
@pytest.mark.parametrize("size", [(3000, 4000), (300, 60_000), (13, 19)])
def test_ten_crops_are_estimated_to_take_more_than_one(
    size: tuple[int, int], recipe: Recipe
) -> None:
    one, ten = (cost.of_fitting(size, size, recipe, crops) for crops in (1, 10))
    pictures = 9 * 224 * 224 * cost.RGB_BYTES
    assert ten.memory >= one.memory + pictures
    assert ten.seconds >= one.seconds


TOO_LARGE: dict[str, tuple[Recipe, Limits, Callable[[], bytes]]] = {
    "many pixels": (Recipe(), Limits(max_seconds=0.12), lambda: bombs.png(2_000, 2_000, bombs.RGB)),
    "exact panorama": (
        square(256, 224, decoding="exact"),
        Limits(),
        lambda: bombs.png(60_000, 40, bombs.RGB),
    ),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_an_image_that_takes_too_much_for_ten_crops_is_refused_at_once(name: str) -> None:
    recipe, limits, generate = TOO_LARGE[name]
    data = generate()
    start = time.process_time()
    with pytest.raises(ImageError, match="to decode; the limit is"):
        load_crops(data, recipe, 10, limits)
    assert time.process_time() - start < 0.2
    assert load(data, recipe, limits).size == (224, 224)


@pytest.mark.parametrize("are_logits", [True, False])
def test_the_mean_is_that_of_the_probabilities(are_logits: bool) -> None:
    rows = np.random.default_rng(0).standard_normal((10, 1000)).astype(np.float32) * 5
    best = [reference.best(row, k=1000) for row in rows]
    probabilities = np.zeros((10, 1000))
    for row, each in zip(probabilities, best, strict=True):
        row[each.classes] = each.probabilities
    given = rows if are_logits else probabilities.astype(np.float32)
    means = mean(given, are_logits=are_logits)
    np.testing.assert_allclose(means, probabilities.mean(axis=0), atol=1e-6)
    assert not np.allclose(means, softmax(rows.mean(axis=0)), atol=1e-3)
