"""The options that describe a user's own classifier."""

import argparse
from pathlib import Path

import onnx
import pytest

from scripts import build_repository, recipe_options
from scripts.repository import sources
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
        ([*OWN, "--normalization", "none", "--std", "1"], "--normalization and --std both say"),
        ([*OWN, "--check", "nowhere.jpg"], "--check: there is no file nowhere.jpg"),
        ([*OWN, "--check", "tests"], "--check: there is no file tests"),
    ],
)
def test_options_that_would_be_ignored_are_refused(options: list[str], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        recipe_options.check(parsed(*options))


@pytest.mark.parametrize("option", ["--onnx", "--hub", "--name", "--recipe", "--labels", "--check"])
def test_empty_values_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(option, "")
    assert f"argument {option}: must not be empty" in capsys.readouterr().err
