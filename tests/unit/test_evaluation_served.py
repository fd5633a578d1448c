"""Which published figures a served model is compared with."""

import json
from dataclasses import replace

import pytest

from scripts.evaluation.served import Served
from scripts.repository.catalog import CATALOG, MOBILENET, RESNET
from scripts.repository.ensemble import IMAGENET_LABELS
from scripts.repository.steps.preprocess.recipe import Recipe, square


def served(name: str, recipe: Recipe, labels: tuple[str, ...] = IMAGENET_LABELS) -> Served:
    return Served(name, labels, json.loads(recipe.to_json()), ((0, 1.0),))


@pytest.mark.parametrize("decoding", ["fast", "exact"])
@pytest.mark.parametrize("name", CATALOG)
def test_the_zoos_models_have_its_figures(name: str, decoding: str) -> None:
    model = CATALOG[name]
    found = served(name, replace(model.recipe, decoding=decoding)).published
    assert found == (model.top1 / 100, model.top5 / 100)


@pytest.mark.parametrize(
    "other",
    [
        served("resnet50", RESNET),
        served("resnet50_v1_10crop", RESNET),  # the zoo's figures are for one crop
        served("resnet50_v1", MOBILENET),
        served("resnet50_v1", square(288, 256)),
        served("resnet50_v1", RESNET, tuple("abc")),
        Served("resnet50_v1", IMAGENET_LABELS, {}, ((0, 1.0),)),
    ],
)
def test_other_models_and_recipes_have_none(other: Served) -> None:
    assert other.published is None
