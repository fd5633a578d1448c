"""Named recipes, recipes in files, and mean and std on either scale."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from scripts.repository.errors import BuildError
from scripts.repository.metadata import recipes
from scripts.repository.metadata.normalization import mean_and_std
from scripts.repository.steps.preprocess.recipe import IMAGENET_MEAN, Recipe, Size, square


def recipe(text: str, size: Size | None = None) -> Recipe:
    return Recipe(**recipes.describe(text, size).recipe)


@pytest.mark.parametrize(
    ("name", "size", "result"),
    [
        ("zoo", None, square(256, 224)),
        ("zoo", (299, 299), square(342, 299)),
        ("zoo-mobilenet", None, square(224, 224)),
        ("torchvision-v1", None, square(256, 224, rounding="torchvision")),
        ("torchvision-v2", (224, 224), square(232, 224, rounding="torchvision")),
        (
            "torchvision-efficientnet-b3",
            None,
            square(320, 300, rounding="torchvision", interpolation="bicubic"),
        ),
        ("timm", (240, 240), square(274, 240, rounding="torchvision", interpolation="bicubic")),
        (
            "timm",
            (128, 256),
            Recipe((146, 292), (128, 256), rounding="torchvision", interpolation="bicubic"),
        ),
        (
            "keras-caffe",
            None,
            square(
                224,
                224,
                mode="squash",
                interpolation="nearest",
                colour="bgr",
                pixel_range=(0.0, 255.0),
                mean=(123.68, 116.779, 103.939),
                std=(1.0,),
            ),
        ),
        (
            "keras-tf",
            (96, 96),
            square(
                96,
                96,
                mode="squash",
                interpolation="nearest",
                pixel_range=(-1.0, 1.0),
                mean=(0.0,),
                std=(1.0,),
            ),
        ),
    ],
)
def test_named_recipe_follows_the_size_of_the_graph(
    name: str, size: Size | None, result: Recipe
) -> None:
    assert recipe(name, size) == result
    assert recipes.describe(name, size).origin == f"recipe {name}"


@pytest.mark.parametrize("name", recipes.NAMED)
@pytest.mark.parametrize("size", [None, (64, 64), (1, 1000)])
def test_every_named_recipe_is_valid_and_listed(name: str, size: Size | None) -> None:
    named = recipes.NAMED[name]
    assert recipe(name, size).crop == (size or (named.crop, named.crop))
    assert named.origin
    assert "\n" not in named.text + named.origin


def test_text_says_what_a_recipe_does() -> None:
    assert recipes.NAMED["torchvision-v2"].text == (
        "shorter side to 232, crop 224, bilinear, rgb 0 to 1, mean 0.485 0.456 0.406, "
        "std 0.229 0.224 0.225"
    )
    assert recipes.NAMED["paddle"].text.startswith("shorter side to 256, crop 224, opencv, rgb")
    assert recipes.NAMED["keras-tf"].text == ("squash to 224, nearest, rgb -1 to 1, mean 0, std 1")


@pytest.mark.parametrize(
    ("content", "crop"),
    [
        ({"image_processor_type": "CLIPImageProcessor", "crop_size": 192}, 192),
        ({"image_processor": {"image_processor_type": "ViTImageProcessor", "size": 160}}, 160),
        ({"architecture": "x", "pretrained_cfg": {"input_size": [3, 299, 299]}}, 299),
        ({"input_size": [3, 240, 240], "crop_pct": 0.9}, 240),
    ],
)
def test_recipe_is_read_from_json(tmp_path: Path, content: dict[str, Any], crop: int) -> None:
    file = tmp_path / "preprocessing.json"
    file.write_text(json.dumps(content))
    assert recipe(str(file)).crop == (crop, crop)
    assert recipes.describe(str(file)).origin == file.name
    assert recipes.describe(str(file)).labels is None


def test_recipe_is_read_from_printed_transforms(tmp_path: Path) -> None:
    file = tmp_path / "transforms.txt"
    file.write_text("Compose(\n    Resize(size=256)\n    CenterCrop(size=224)\n    ToTensor()\n)")
    assert recipe(str(file)) == square(256, 224, rounding="torchvision", mean=(0.0,), std=(1.0,))


def test_other_texts_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no recipe or file torchvison; --list-recipes"):
        recipes.describe("torchvison")
    for content, message in (
        (b'{"model_type": "vit"}', "is neither a preprocessor_config.json nor"),
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"", "it has no Resize"),
    ):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(BuildError, match=message) as caught:
            recipes.describe(str(tmp_path / "file"))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mean", "std", "result"),
    [
        (None, None, {}),
        (IMAGENET_MEAN, None, {"mean": IMAGENET_MEAN}),
        ([0, 0, 0], [1, 1, 1], {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
        ([0.5], [0.5], {"mean": (0.5,), "std": (0.5,)}),
        ([-1.0], [0.5], {"mean": (-1.0,), "std": (0.5,)}),
        ([127.5], [127.5], {"mean": (0.5,), "std": (0.5,)}),
        ([0], [255], {"mean": (0.0,), "std": (1.0,)}),
        ([51, 102, 204], [1, 1, 1], {"mean": (0.2, 0.4, 0.8), "std": (1 / 255,) * 3}),
        (None, [51.0], {"std": (0.2,)}),
    ],
)
def test_mean_and_std_above_one_are_those_of_0_to_255(
    mean: list[float] | None,
    std: list[float] | None,
    result: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert mean_and_std(mean, std) == result
    given = {"mean": mean, "std": std}
    changed = [name for name, value in result.items() if list(value) != list(given[name] or [])]
    assert bool(caplog.records) == bool(changed)
    assert mean_and_std(mean, std, pixel_range=(0, 255)) == {
        name: tuple(value) for name, value in given.items() if value is not None
    }


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([123.675, 116.28, 103.53], [0.229, 0.224, 0.225], "give mean 0.485 0.456 0.406"),
        ([0.485, 0.456, 0.406], [58.395, 57.12, 57.375], "give std 0.229 0.224 0.225"),
        ([float("nan")], [1.0], "give finite numbers"),
    ],
)
def test_mixed_scales_are_refused_with_the_numbers_to_give(
    mean: list[float], std: list[float], message: str
) -> None:
    with pytest.raises(BuildError, match=message):
        mean_and_std(mean, std)
