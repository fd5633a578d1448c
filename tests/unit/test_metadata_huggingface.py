"""What the files of Hugging Face's transformers say.

The expected recipes give the pixels of the processors of transformers 4.57, bit by bit.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.repository.errors import BuildError
from scripts.repository.metadata import huggingface
from scripts.repository.metadata.processors import MODEL_TYPES, PROCESSORS
from scripts.repository.steps.preprocess.recipe import IMAGENET_MEAN, IMAGENET_STD, Recipe

IMAGENET = {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
ORIGIN = "preprocessor_config.json"


def recipe(**config: Any) -> Recipe:
    fields = huggingface.recipe(config, ORIGIN)
    assert "decoding" not in fields
    return Recipe(**fields)


def expected(resize: int, crop: int, **fields: Any) -> Recipe:
    fields = {"rounding": "transformers", **fields}
    return Recipe((resize, resize), (crop, crop), **fields)


@pytest.mark.parametrize(
    ("config", "result"),
    [
        pytest.param(
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}},
            expected(224, 224, mode="squash", **HALF),
            id="google/vit-base-patch16-224",
        ),
        pytest.param(
            {"feature_extractor_type": "ViTFeatureExtractor", "resample": 3, "size": 224}
            | IMAGENET,
            expected(224, 224, mode="squash", interpolation="bicubic"),
            id="microsoft/swin-tiny-patch4-window7-224",
        ),
        pytest.param(
            {
                "feature_extractor_type": "ConvNextFeatureExtractor",
                "crop_pct": 0.875,
                "resample": 3,
                "size": 224,
            }
            | IMAGENET,
            expected(256, 224, interpolation="bicubic"),
            id="microsoft/resnet-50",
        ),
        pytest.param(
            {"image_processor_type": "ConvNextImageProcessor", "crop_pct": None} | IMAGENET,
            expected(384, 384, mode="squash"),
            id="ConvNeXT at 384",
        ),
        pytest.param(
            {
                "feature_extractor_type": "MobileViTFeatureExtractor",
                "crop_size": 256,
                "do_center_crop": True,
                "do_flip_channel_order": True,
                "image_mean": [0.5, 0.5, 0.5],
                "resample": 2,
                "size": 288,
            },
            expected(288, 256, colour="bgr", mean=(0.0,), std=(1.0,)),
            id="apple/mobilevit-small",
        ),
        pytest.param(
            {
                "feature_extractor_type": "DeiTFeatureExtractor",
                "crop_size": 224,
                "do_center_crop": True,
                "resample": 3,
                "size": 256,
            }
            | IMAGENET,
            expected(256, 224, mode="squash", interpolation="bicubic"),
            id="facebook/deit-base-distilled-patch16-224",
        ),
        pytest.param(
            {
                "image_processor_type": "EfficientNetImageProcessor",
                "do_center_crop": False,
                "image_mean": [0.485, 0.456, 0.406],
                "image_std": [0.5, 0.25, 0.125],
                "include_top": True,
                "resample": 0,
                "rescale_offset": False,
                "size": {"height": 224, "width": 224},
            },
            expected(
                224, 224, mode="squash", interpolation="nearest", std=(0.25, 0.0625, 0.015625)
            ),
            id="google/efficientnet-b0, which divides twice",
        ),
        pytest.param(
            {
                "image_processor_type": "EfficientNetImageProcessor",
                "rescale_offset": True,
                "rescale_factor": 1 / 127.5,
                "include_top": False,
                "do_normalize": False,
            },
            expected(
                346,
                346,
                mode="squash",
                interpolation="nearest",
                pixel_range=(-1.0, 1.0),
                mean=(0.0,),
                std=(1.0,),
            ),
            id="rescale_offset",
        ),
        pytest.param(
            {
                "image_processor_type": "BitImageProcessor",
                "crop_size": {"height": 224, "width": 224},
                "do_center_crop": True,
                "do_convert_rgb": True,
                "resample": 3,
                "size": {"shortest_edge": 256},
            }
            | IMAGENET,
            expected(256, 224, interpolation="bicubic"),
            id="facebook/dinov2-base",
        ),
        pytest.param(
            {"image_processor_type": "LevitImageProcessor", "size": 224},
            expected(256, 224, interpolation="bicubic"),
            id="LeViT resizes to 256/224 of its size",
        ),
        pytest.param(
            {"image_processor_type": "PoolFormerImageProcessor"},
            expected(248, 224, interpolation="bicubic"),
            id="PoolFormer divides by crop_pct",
        ),
        pytest.param(
            {"image_processor_type": "PoolFormerImageProcessor", "crop_pct": None},
            expected(224, 224, interpolation="bicubic"),
            id="PoolFormer without crop_pct",
        ),
        pytest.param(
            {"image_processor_type": "BeitImageProcessor"},
            expected(256, 224, mode="squash", interpolation="bicubic", **HALF),
            id="BEiT",
        ),
        pytest.param(
            {"image_processor_type": "BeitImageProcessorFast"},
            expected(224, 224, mode="squash", interpolation="bicubic", **HALF),
            id="the fast BEiT has other defaults",
        ),
        pytest.param(
            {"image_processor_type": "ConvNextImageProcessorFast", "size": {"shortest_edge": 224}},
            expected(256, 224, rounding="torchvision", **HALF),
            id="the fast ConvNeXT crops as torchvision",
        ),
        pytest.param(
            {
                "image_processor_type": "ViTImageProcessorFast",
                "do_center_crop": True,
                "crop_size": {"height": 224, "width": 200},
                "size": [256, 240],
                "do_rescale": False,
                "image_mean": 127.5,
                "image_std": 127.5,
            },
            Recipe(
                (256, 240),
                (224, 200),
                mode="squash",
                rounding="transformers",
                pixel_range=(0.0, 255.0),
                mean=(127.5,),
                std=(127.5,),
            ),
            id="scalars, sizes that are not square, no rescaling",
        ),
    ],
)
def test_recipe_is_that_of_the_image_processor(config: dict[str, Any], result: Recipe) -> None:
    assert recipe(**config) == result


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_class_is_that_of_the_model_if_the_file_does_not_name_it(model_type: str) -> None:
    assert MODEL_TYPES[model_type] in PROCESSORS
    size = {"size": 256, "crop_size": 224}
    named = {"image_processor_type": f"{MODEL_TYPES[model_type]}ImageProcessor"}
    assert huggingface.recipe(size, ORIGIN, model_type=model_type) == huggingface.recipe(
        size | named, ORIGIN
    )


@pytest.mark.parametrize("name", PROCESSORS)
def test_defaults_of_each_class_are_usable_or_refused(name: str) -> None:
    config = {"image_processor_type": f"{name}ImageProcessor"}
    if name == "MobileViT":  # pads 224 to 256 with black
        with pytest.raises(BuildError, match="crop_size 256 exceeds size 224"):
            recipe(**config)
    else:
        assert recipe(**config).channels == 3


VIT = {"image_processor_type": "ViTImageProcessor"}
CLIP = {"image_processor_type": "CLIPImageProcessor"}


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"image_processor_type": "PerceiverImageProcessor"}, "PerceiverImageProcessor"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, "Siglip2ImageProcessor"),
        ({"image_processor_type": "ImageGPTImageProcessor"}, "ImageGPTImageProcessor"),
        ({"image_processor_type": "TextNetImageProcessor"}, "TextNetImageProcessor"),
        ({"image_processor_type": "MyProcessor"}, "MyProcessor"),
        ({"image_mean": [0.5]}, "it names no image_processor_type"),
        ({**VIT, "do_resize": False}, "do_resize"),
        ({**VIT, "do_pad": True}, "do_pad"),
        ({**VIT, "size_divisor": 32}, "size_divisor"),
        ({**VIT, "size": {"longest_edge": 224}}, "size has longest_edge"),
        ({**VIT, "size": {"shortest_edge": 224}}, "do_center_crop is false"),
        ({**VIT, "size": "large"}, "size is 'large'"),
        ({"image_processor_type": "ViTImageProcessorFast", "do_center_crop": True}, "crop_size"),
        ({**VIT, "resample": 9}, "cannot use it"),
        ({**VIT, "image_std": [0.5, 0.5, 0]}, "std must be positive"),
        ({**VIT, "image_mean": [0.5, 0.5]}, "mean has 2 values"),
        ({**VIT, "image_mean": "half"}, "could not convert"),
        ({**CLIP, "do_center_crop": False}, "do_center_crop is false"),
        ({**CLIP, "crop_size": 256}, "crop_size 256 exceeds size 224"),
        ({**CLIP, "size": {"shortest_edge": 224, "longest_edge": 300}}, "longest_edge"),
        ({"image_processor_type": "DPTImageProcessor", "keep_aspect_ratio": True}, "keep_aspect"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": [2, 2]}, "no shortest_edge"),
    ],
)
def test_what_a_recipe_cannot_say_is_refused(config: dict[str, Any], field: str) -> None:
    with pytest.raises(BuildError) as caught:
        recipe(**config)
    assert field in str(caught.value)
    assert str(caught.value).startswith(f"{ORIGIN}: ")
    assert "--recipe" in str(caught.value)
    assert "\n" not in str(caught.value)


def write(folder: Path, name: str, **content: Any) -> None:
    (folder / name).write_text(json.dumps(content))


def test_processor_config_is_read_as_well(tmp_path: Path) -> None:
    assert huggingface.describe_preprocessing(tmp_path) is None
    write(tmp_path, "processor_config.json", processor_class="X", image_processor={**CLIP})
    found = huggingface.describe_preprocessing(tmp_path)
    assert found is not None
    assert found.origin == "processor_config.json"
    assert found.recipe["crop"] == (224, 224)


@pytest.mark.parametrize(
    ("config", "labels", "scores"),
    [
        ({"id2label": {"1": "dog", "0": "cat"}}, ("cat", "dog"), None),
        (
            {
                "id2label": {"0": "rain", "1": "snow"},
                "problem_type": "multi_label_classification",
            },
            ("rain", "snow"),
            "sigmoid",
        ),
        ({"id2label": {"0": "cat"}}, ("not cat", "cat"), "sigmoid"),
    ],
)
def test_labels_and_scores_are_those_of_config_json(
    tmp_path: Path, config: dict[str, Any], labels: tuple[str, ...], scores: str | None
) -> None:
    write(tmp_path, "config.json", model_type="vit", **config)
    found = huggingface.describe_model(tmp_path)
    assert found is not None
    assert (found.origin, found.labels, found.scores) == ("config.json", labels, scores)
    assert not found.recipe


def test_config_json_without_labels_says_nothing(tmp_path: Path) -> None:
    write(tmp_path, "config.json", model_type="vit")
    assert huggingface.describe_model(tmp_path) is None
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BuildError, match=r"config\.json is not JSON"):
        huggingface.describe_model(tmp_path)
