"""What timm's config.json says.

The expected recipes do what `timm.data.create_transform` 1.0.29 does for the same configuration.
"""

from typing import Any

import pytest

from scripts.repository.errors import BuildError
from scripts.repository.metadata import timm_config
from scripts.repository.steps.preprocess.recipe import Recipe, Size

ORIGIN = "config.json of timm"


def recipe(config: dict[str, Any], size: Size | None = None) -> Recipe:
    return Recipe(**timm_config.describe(config, ORIGIN, size=size).recipe)


def expected(resize: Size, crop: Size, **fields: Any) -> Recipe:
    return Recipe(resize, crop, **{"rounding": "torchvision", "interpolation": "bicubic", **fields})


RESNET = {"input_size": [3, 224, 224], "test_input_size": [3, 288, 288], "crop_pct": 0.95}


@pytest.mark.parametrize(
    ("pretrained", "size", "result"),
    [
        pytest.param({}, None, expected((256, 256), (224, 224)), id="defaults"),
        pytest.param(
            {**RESNET, "test_crop_pct": 1.0}, None, expected((235, 235), (224, 224)), id="resnet50"
        ),
        pytest.param(
            {**RESNET, "test_crop_pct": 1.0},
            (288, 288),
            expected((288, 288), (288, 288)),
            id="exported at test_input_size",
        ),
        pytest.param(
            RESNET, (320, 320), expected((336, 336), (320, 320)), id="exported at another size"
        ),
        pytest.param(
            {
                "input_size": [3, 299, 299],
                "interpolation": "bilinear",
                "crop_mode": "squash",
                "crop_pct": 1.0,
                "mean": [0.5, 0.5, 0.5],
                "std": [0.5, 0.5, 0.5],
            },
            None,
            expected(
                (299, 299),
                (299, 299),
                mode="squash",
                interpolation="bilinear",
                mean=(0.5, 0.5, 0.5),
                std=(0.5, 0.5, 0.5),
            ),
            id="squash",
        ),
        pytest.param(
            {"crop_mode": "border", "crop_pct": 1.0},
            None,
            expected((224, 224), (224, 224), mode="letterbox", fill=(124, 116, 104)),
            id="border",
        ),
        pytest.param(
            {"input_size": [3, 128, 256], "interpolation": "bicubic"},
            None,
            expected((146, 292), (128, 256), interpolation="bilinear"),
            id="not square: timm does not pass the interpolation on",
        ),
        pytest.param(
            {"input_size": [1, 28, 28], "mean": [0.13], "std": [0.31], "crop_pct": 1.0},
            None,
            expected((28, 28), (28, 28), colour="grey", mean=(0.13,), std=(0.31,)),
            id="grey",
        ),
    ],
)
@pytest.mark.parametrize("nested", [True, False])
def test_recipe_is_that_of_create_transform(
    pretrained: dict[str, Any], size: Size | None, result: Recipe, nested: bool
) -> None:
    config = {"architecture": "x", "pretrained_cfg": pretrained} if nested else pretrained
    assert recipe(config, size) == result


def test_another_size_than_the_configured_one_is_said() -> None:
    assert timm_config.describe({"pretrained_cfg": RESNET}, ORIGIN).origin == ORIGIN
    found = timm_config.describe({"pretrained_cfg": RESNET}, ORIGIN, size=(288, 288))
    assert found.origin == f"{ORIGIN}, for 288 instead of 224"


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({"label_names": ["cat", "dog"]}, ("cat", "dog")),
        (
            {
                "label_names": ["n02123045", "n02110341"],
                "label_descriptions": {"n02123045": "tabby", "n02110341": "dalmatian"},
            },
            ("tabby", "dalmatian"),
        ),
        ({"pretrained_cfg": {"label_names": ["cat", "dog"]}}, ("cat", "dog")),
        ({"pretrained_cfg": {"num_classes": 1000}}, None),
    ],
)
def test_labels_are_the_descriptions_or_names(
    config: dict[str, Any], labels: tuple[str, ...] | None
) -> None:
    assert timm_config.describe(config, ORIGIN).labels == labels
    assert not timm_config.describe(config, ORIGIN, preprocessing=False).recipe


@pytest.mark.parametrize(
    ("pretrained", "message"),
    [
        ({"interpolation": "random"}, "interpolation is 'random'"),
        ({"input_size": [4, 224, 224]}, "input_size has 4 channels"),
        ({"input_size": 224}, "cannot use it"),
        ({"crop_pct": 1.15}, "a crop of 224 pixels does not fit"),
        ({"mean": "none"}, "cannot use it"),
        ({"std": [0.5, 0.5]}, "std has 2 values"),
    ],
)
def test_what_a_recipe_cannot_say_is_refused(pretrained: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        recipe({"pretrained_cfg": pretrained})
    assert str(caught.value).startswith(ORIGIN)
    assert "--recipe" in str(caught.value)


def test_configurations_of_timm_are_recognised() -> None:
    assert timm_config.is_timm({"architecture": "resnet50", "pretrained_cfg": {}})
    assert timm_config.is_timm({"input_size": [3, 224, 224], "crop_pct": 0.9})
    assert not timm_config.is_timm({"model_type": "vit", "image_size": 224})
