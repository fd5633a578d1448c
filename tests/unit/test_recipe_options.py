"""The options that describe a user's own classifier."""

import argparse
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from scripts import build_repository, recipe_options
from scripts.repository import sources
from scripts.repository.catalog import CATALOG
from scripts.repository.description import merge
from scripts.repository.errors import BuildError
from scripts.repository.steps.preprocess.recipe import IMAGENET_STD, Recipe
from tests.graphs import FLEXIBLE, classifier

OWN = ("--onnx", "birds.onnx")


def parsed(*options: str) -> argparse.Namespace:
    return build_repository.parser().parse_args(options)


def recipe(folder: Path, *options: str) -> Recipe:
    """The recipe for a graph of 32 pixels with these options."""
    file = folder / "birds.onnx"
    onnx.save(classifier(FLEXIBLE), file)
    given = parsed("--onnx", str(file), *options)
    said = recipe_options.descriptions(given)
    return sources.from_file(file, "birds", *said, recipe=given.recipe).recipe


def test_each_option_is_a_source_of_its_own() -> None:
    options = parsed(
        *OWN, "--crop", "32x48", "--std", "0.5", "--no-antialias", "--scores", "logits"
    )
    said, origins = merge(recipe_options.descriptions(options))
    assert said.recipe == {
        "crop": (32, 48),
        "antialias": False,
        "std": (0.5,),
        "decoding": "fast",
    }
    assert said.scores == "logits"
    assert origins == {
        "crop": "--crop",
        "antialias": "--no-antialias",
        "std": "--std",
        "decoding": "--decoding",
        "scores": "--scores",
    }


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (["--mean", "127.5", "--std", "127.5"], {"mean": (0.5,), "std": (0.5,)}),
        (["--mean", "127.5"], {"mean": (0.5,), "std": IMAGENET_STD}),
        (
            ["--pixel-range", "0", "255", "--mean", "120", "--std", "60"],
            {"pixel_range": (0, 255), "mean": (120,), "std": (60,)},
        ),
        (
            ["--recipe", "keras-caffe", "--mean", "120"],
            {"colour": "bgr", "pixel_range": (0, 255), "mean": (120,), "std": (1,)},
        ),
        (["--pixel-range", "-1", "1"], {"pixel_range": (-1, 1), "mean": (0,), "std": (1,)}),
        (["--normalization", "none"], {"pixel_range": (0, 255), "mean": (0,), "std": (1,)}),
        (["--recipe", "keras-raw", "--normalization", "imagenet"], {"pixel_range": (0, 1)}),
        (["--resize-mode", "letterbox", "--fill", "1", "2", "3"], {"fill": (1, 2, 3)}),
        (["--resize-mode", "letterbox", "--resize", "20x30"], {"resize": (20, 30)}),
        (["--resize-mode", "squash"], {"resize": (32, 32)}),
    ],
)
def test_options_make_a_recipe(
    tmp_path: Path, options: list[str], fields: dict[str, object]
) -> None:
    made = recipe(tmp_path, *options)
    assert {name: getattr(made, name) for name in fields} == fields


def test_a_mean_on_another_scale_than_the_std_of_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"std 0\.5 is for pixels in 0\.\.1, but mean 120 for"):
        recipe(tmp_path, "--recipe", "vit", "--mean", "120")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*OWN, "--hub", "a/b"], "--onnx and --hub exclude each other"),
        ([*OWN, "--revision", "main"], "--revision selects a version on the hub"),
        (["--fill", "1", "2", "3", "--name", "a"], "to use --fill, --name, give your own"),
        (["--no-antialias"], "to use --no-antialias, give your own classifier"),
        (["--crop", "320"], "to use --crop, give your own classifier: .* with --models"),
        (
            ["--models", "all", "--crop", "9", "--std", "1"],
            "to use --std, give your own classifier",
        ),
        (
            [*OWN, "--models", "all", "--crop", "320"],
            "--crop would be for --models as well as for your own classifier; build them one",
        ),
        ([*OWN, "--normalization", "none", "--std", "1"], "--normalization and --std both say"),
        ([*OWN, "--check", "nowhere.jpg"], "--check: there is no file nowhere.jpg"),
        ([*OWN, "--check", "tests"], "--check: there is no file tests"),
    ],
)
def test_options_that_would_be_ignored_are_refused(options: list[str], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        recipe_options.check(parsed(*options))


@pytest.mark.parametrize(
    ("name", "options", "sizes"),
    [
        ("resnet50_v1", [], ((256, 256), (224, 224))),
        ("resnet50_v1", ["--resize", "352", "--crop", "320"], ((352, 352), (320, 320))),
        ("resnet50_v1", ["--resize", "232"], ((232, 232), (224, 224))),
        ("resnet50_v1", ["--crop", "320"], ((366, 366), (320, 320))),
        ("resnet50_v1", ["--crop", "280x336"], ((320, 384), (280, 336))),
        ("mobilenetv2", ["--crop", "320"], ((320, 320), (320, 320))),
    ],
)
def test_the_zoo_is_resized(
    name: str,
    options: list[str],
    sizes: tuple[tuple[int, int], tuple[int, int]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = CATALOG[name]
    given = parsed("--models", name, *options)
    recipe_options.check(given)
    resized = recipe_options.resized(model, given)
    assert (resized.recipe.resize, resized.recipe.crop) == sizes
    assert replace(resized, recipe=model.recipe) == model
    is_guessed = "--crop" in options and "--resize" not in options
    assert ("give --resize for another size" in caplog.text) == is_guessed
    if "--crop 320" in caplog.text and name == "resnet50_v1":
        assert "images are resized to 366 for --crop 320, as the zoo does to 256 for 224" in (
            caplog.text
        )


def test_sizes_that_do_not_fit_together_are_refused_with_the_name_of_the_model() -> None:
    given = parsed("--models", "resnet50_v1", "--resize", "200")
    with pytest.raises(BuildError, match=r"^resnet50_v1: a crop of 224 pixels does not fit an im"):
        recipe_options.resized(CATALOG["resnet50_v1"], given)


@pytest.mark.parametrize("option", ["--onnx", "--hub", "--name", "--recipe", "--labels", "--check"])
def test_empty_values_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(option, "")
    assert f"argument {option}: must not be empty" in capsys.readouterr().err
