"""The list of a server's models, as the command writes it."""

import json
import re
from typing import Any

import pytest

from client import Model
from client._output import write_models
from scripts.repository.steps.preprocess.recipe import Recipe, square


@pytest.mark.parametrize(
    ("recipe", "written"),
    [
        (square(256, 224), "256 / 224"),
        (Recipe((256, 320), (224, 288)), "256x320 / 224x288"),
        (square(384, 384, mode="squash", interpolation="bicubic"), "384 / 384, squash, bicubic"),
        (square(416, 416, mode="letterbox", colour="bgr"), "416 / 416, letterbox, bgr"),
        (square(73, 64, decoding="exact"), "73 / 64, exact"),
    ],
)
def test_the_table_shows_sizes_and_unusual_choices(
    recipe: Recipe, written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert row(json.loads(recipe.to_json()), capsys) == ["10", written, "birds", "ready"]


def test_the_table_shows_recipes_of_older_servers(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = {"resize": 256, "crop": 224, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    assert row(recipe, capsys) == ["10", "256 / 224", "birds", "ready"]


def test_the_table_shows_the_number_of_crops(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = json.loads(Recipe().to_json())
    write_models([Model("birds_10crop", ready=True, classes=10, recipe=recipe, crops=10)], "table")
    assert "256 / 224, 10 crops" in capsys.readouterr().out


def row(recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the cells of a table's row."""
    write_models([Model("birds", ready=True, classes=10, recipe=recipe)], "table")
    return re.split("  +", capsys.readouterr().out.strip().splitlines()[-1].strip())
