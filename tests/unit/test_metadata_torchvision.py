"""What torchvision 0.28, timm 1.0.29 and open_clip print for their transforms."""

import logging
from typing import Any

import pytest

from scripts.repository.errors import BuildError
from scripts.repository.metadata import torchvision_text
from scripts.repository.metadata.processors import CLIP_MEAN, CLIP_STD
from scripts.repository.steps.preprocess.recipe import Recipe, Size

IMAGENET = "mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]"


def recipe(text: str) -> Recipe:
    return Recipe(**torchvision_text.recipe(text, "transforms.txt"))


def expected(resize: Size, crop: Size, **fields: Any) -> Recipe:
    return Recipe(resize, crop, **{"rounding": "torchvision", **fields})


@pytest.mark.parametrize(
    ("text", "result"),
    [
        pytest.param(
            """ImageClassification(
    crop_size=[224]
    resize_size=[232]
    mean=[0.485, 0.456, 0.406]
    std=[0.229, 0.224, 0.225]
    interpolation=InterpolationMode.BILINEAR
)""",
            expected((232, 232), (224, 224)),
            id="weights.transforms()",
        ),
        pytest.param(
            """Compose(
    Resize(size=248, interpolation=bicubic, max_size=None, antialias=True)
    CenterCrop(size=(224, 224))
    MaybeToTensor()
    Normalize(mean=tensor([0.4815, 0.4578, 0.4082]), std=tensor([0.2686, 0.2613, 0.2758]))
)""",
            expected((248, 248), (224, 224), interpolation="bicubic", mean=CLIP_MEAN, std=CLIP_STD),
            id="timm, whose tensors have four digits",
        ),
        pytest.param(
            """Compose(
    ResizeKeepRatio(size=(146, 292), interpolation=bilinear, longest=0.000, random_scale_prob=0.000)
    CenterCrop(size=(128, 256))
    MaybeToTensor()
    Normalize(mean=tensor([0.5000, 0.5000, 0.5000]), std=tensor([0.5000, 0.5000, 0.5000]))
)""",
            expected((146, 292), (128, 256), mean=(0.5,) * 3, std=(0.5,) * 3),
            id="timm, not square",
        ),
        pytest.param(
            """Compose(
    ResizeKeepRatio(size=(224, 224), interpolation=bicubic, longest=1.000)
    CenterCropOrPad(size=(224, 224))
    MaybeToTensor()
    Normalize(mean=tensor([0.4850, 0.4560, 0.4060]), std=tensor([0.2290, 0.2240, 0.2250]))
)""",
            expected(
                (224, 224),
                (224, 224),
                mode="letterbox",
                interpolation="bicubic",
                fill=(124, 116, 104),
            ),
            id="timm, border",
        ),
        pytest.param(
            """Compose(
    Resize(size=224, interpolation=bicubic, max_size=None, antialias=True)
    CenterCrop(size=(224, 224))
    <function _convert_image_to_rgb at 0x7f1c0c0c9d80>
    ToTensor()
    Normalize(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
)""",
            expected((224, 224), (224, 224), interpolation="bicubic", mean=CLIP_MEAN, std=CLIP_STD),
            id="CLIP",
        ),
        pytest.param(
            f"""Compose(
      ToImage()
      Resize(size=[256], interpolation=InterpolationMode.BILINEAR, antialias=False)
      CenterCrop(size=(224, 224))
      ToDtype(scale=True)
      Normalize({IMAGENET}, inplace=False)
)""",
            expected((256, 256), (224, 224), antialias=False),
            id="torchvision.transforms.v2, tensors without antialiasing",
        ),
        pytest.param(
            f"""Sequential(
  (0): Resize(size=(240, 224), interpolation=InterpolationMode.LANCZOS, antialias=False)
  (1): RGB()
  (2): PILToTensor()
  (3): ConvertImageDtype()
  (4): Normalize({IMAGENET})
)""",
            expected((240, 224), (240, 224), mode="squash", interpolation="lanczos"),
            id="exact size; Pillow antialiases always",
        ),
        pytest.param(
            "Compose([Resize(256), CenterCrop(224), ToTensor()])",
            expected((256, 256), (224, 224), mean=(0.0,), std=(1.0,)),
            id="positional arguments, no normalisation",
        ),
        pytest.param(
            "Resize(size=28)\nCenterCrop(size=28)\nGrayscale(num_output_channels=1)\nToTensor()\n"
            "Normalize(mean=(0.1307,), std=(0.3081,))",
            expected((28, 28), (28, 28), colour="grey", mean=(0.1307,), std=(0.3081,)),
            id="grey",
        ),
        pytest.param(
            "Resize(size=32, interpolation=nearest-exact)\nCenterCrop(size=32)\nPILToTensor()",
            expected(
                (32, 32),
                (32, 32),
                interpolation="nearest",
                pixel_range=(0.0, 255.0),
                mean=(0.0,),
                std=(1.0,),
            ),
            id="pixels in 0..255",
        ),
    ],
)
def test_printed_transforms_give_their_recipe(text: str, result: Recipe) -> None:
    assert recipe(text) == result


def test_resizing_of_scaled_tensors_is_said_to_differ(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert recipe("ToTensor()\nResize(size=256)\nCenterCrop(size=224)").antialias
    assert "Resize follows ToTensor" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has no Resize"),
        ("hello world", "the line 'hello world' is unknown"),
        ("Compose(\n    Resize(size=224)\n    <my.Step object at 0x7f>\n)", "<my.Step object"),
        ("Resize(size=224", "a closing parenthesis is missing"),
        ("Resize(size=224 224)", "cannot read 'size=224 224'"),
        ("Resize(1, 2, 3)", "cannot read '1, 2, 3'"),
        ("Resize(interpolation=bilinear)", "size"),
        ("Resize(size=224)\nToTensor()", "it has no CenterCrop"),
        ("CenterCrop(size=224)\nResize(size=224)", "CenterCrop has no Resize just before it"),
        ("Resize(size=256)\nResize(size=224)", "Resize follows another"),
        ("Resize(size=9)\nCenterCrop(size=8)\nCenterCrop(size=4)", "no Resize just before it"),
        ("Normalize(mean=0, std=1)\nNormalize(mean=0, std=1)", "there are two Normalize"),
        ("Resize(size=256, max_size=300)", "max_size is 300"),
        ("Resize(size=256, interpolation=magic)", "interpolation is magic"),
        ("Resize(size=(1, 2, 3))", r"size is \(1, 2, 3\)"),
        ("ToImage()\nResize(size=256, interpolation=bicubic, antialias=False)", "bicubic filter"),
        ("Resize(size=256)\nCenterCrop(size=300)\nToTensor()", "a crop of 300 pixels does not fit"),
        ("RandomHorizontalFlip(p=0.5)", "RandomHorizontalFlip is not supported"),
        ("Grayscale(num_output_channels=3)", "Grayscale gives more than one channel"),
        ("Resize(size=8)\nCenterCrop(size=8)\nNormalize(mean=a, std=b)", "cannot use it"),
    ],
)
def test_unknown_steps_are_refused(text: str, message: str) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        recipe(text)
    assert str(caught.value).startswith("transforms.txt: ")
    assert "\n" not in str(caught.value)
