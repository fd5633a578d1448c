"""Named recipes, and recipes in files."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.repository.description import Description
from scripts.repository.errors import BuildError
from scripts.repository.metadata import huggingface, timm_config, torchvision_text
from scripts.repository.metadata.fields import nested, read_json, square, whole
from scripts.repository.metadata.processors import CLIP_MEAN, CLIP_STD
from scripts.repository.steps.preprocess.recipe import Recipe, Size, written

Rule = Callable[[int], int]
PLAIN: Mapping[str, Any] = {"mean": (0.0,), "std": (1.0,)}
HALF: Mapping[str, Any] = {"mean": (0.5,), "std": (0.5,)}
CLIP: Mapping[str, Any] = {"mean": CLIP_MEAN, "std": CLIP_STD}
OPENCV: Mapping[str, Any] = {"interpolation": "opencv", "antialias": False}
KERAS: Mapping[str, Any] = {"mode": "squash", "interpolation": "nearest"}
# torchvision/models/*.py: sizes before and after the crop, and the filter.
TORCHVISION = {
    "efficientnet-b0": (256, 224, "bicubic"),
    "efficientnet-b1": (256, 240, "bicubic"),
    "efficientnet-b2": (288, 288, "bicubic"),
    "efficientnet-b3": (320, 300, "bicubic"),
    "efficientnet-b4": (384, 380, "bicubic"),
    "efficientnet-b5": (456, 456, "bicubic"),
    "efficientnet-b6": (528, 528, "bicubic"),
    "efficientnet-b7": (600, 600, "bicubic"),
    "efficientnet-v2-s": (384, 384, "bilinear"),
    "efficientnet-v2-m": (480, 480, "bilinear"),
    "swin-t": (232, 224, "bicubic"),
    "swin-s": (246, 224, "bicubic"),
    "swin-b": (238, 224, "bicubic"),
}


@dataclass(frozen=True)
class Named:
    """A recipe with a name.

    Attributes:
        origin: the file or function that it does the same as.
        crop: the size of the library, in pixels.
        resize: the size before the crop, from that of the crop.
        fields: the other fields of the recipe.
    """

    origin: str
    crop: int = 224
    resize: Rule = lambda crop: crop
    fields: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self, size: Size | None = None) -> Recipe:
        """Make the recipe for a graph that takes this height and width."""
        height, width = size or square(self.crop)
        return Recipe(
            resize=(self.resize(height), self.resize(width)), crop=(height, width), **self.fields
        )

    @property
    def text(self) -> str:
        """What it does, in one line."""
        recipe = self.recipe()
        size = written(recipe.resize)
        resize = (
            f"shorter side to {size}" if recipe.mode == "shorter" else f"{recipe.mode} to {size}"
        )
        crop = "" if recipe.crop == recipe.resize else f", crop {written(recipe.crop)}"
        is_special = not recipe.antialias and recipe.interpolation != "opencv"
        antialias = " without antialiasing" if is_special else ""
        low, high = recipe.pixel_range
        mean, std = (
            " ".join(f"{each:g}" for each in values) for values in (recipe.mean, recipe.std)
        )
        return (
            f"{resize}{crop}, {recipe.interpolation}{antialias}, {recipe.colour} "
            f"{low:g} to {high:g}, mean {mean}, std {std}"
        )


def _by(ratio: float) -> Rule:
    return lambda crop: round(crop * ratio)


def _timm(crop: int) -> int:
    return math.floor(crop / timm_config.CROP_PCT)


def _torchvision(resize: int, crop: int, interpolation: str, origin: str) -> Named:
    fields = {"rounding": "torchvision", "interpolation": interpolation}
    return Named(origin, crop, _by(resize / crop), fields)


def _keras(mode: str, **fields: Any) -> Named:  # noqa: ANN401
    return Named(
        f"keras.utils.load_img (nearest pixel) and preprocess_input of mode {mode}",
        fields={**KERAS, **fields},
    )


NAMED: dict[str, Named] = {
    "zoo": Named("imagenet_preprocess.py of the ONNX Model Zoo", resize=_by(256 / 224)),
    "zoo-mobilenet": Named("mobilenetv2-7 of the ONNX Model Zoo: no margin around the crop"),
    "torchvision-v1": _torchvision(256, 224, "bilinear", "torchvision's IMAGENET1K_V1 weights"),
    "torchvision-v2": _torchvision(232, 224, "bilinear", "torchvision's IMAGENET1K_V2 weights"),
    **{
        f"torchvision-{name}": _torchvision(*values, f"torchvision.models.{name.replace('-', '_')}")
        for name, values in TORCHVISION.items()
    },
    "timm": Named(
        "timm.data.create_transform with its defaults",
        resize=_timm,
        fields={"rounding": "torchvision", "interpolation": "bicubic"},
    ),
    "inception": Named(
        "timm's inception_v3.tf_in1k",
        299,
        _timm,
        {"rounding": "torchvision", "interpolation": "bicubic", **HALF},
    ),
    "vit": Named(
        "ViTImageProcessor of google/vit-base-patch16-224",
        fields={"mode": "squash", "rounding": "transformers", **HALF},
    ),
    "dinov2": Named(
        "BitImageProcessor of facebook/dinov2-base",
        resize=_by(256 / 224),
        fields={"rounding": "transformers", "interpolation": "bicubic"},
    ),
    "clip": Named(
        "CLIPImageProcessor of openai/clip-vit-base-patch32",
        fields={"rounding": "transformers", "interpolation": "bicubic", **CLIP},
    ),
    "siglip": Named(
        "SiglipImageProcessor of google/siglip-base-patch16-224",
        fields={"mode": "squash", "rounding": "transformers", "interpolation": "bicubic", **HALF},
    ),
    "keras-caffe": _keras(
        "caffe: ResNet, VGG",
        colour="bgr",
        pixel_range=(0.0, 255.0),
        mean=(123.68, 116.779, 103.939),
        std=(1.0,),
    ),
    "keras-tf": _keras("tf: MobileNet, Inception, Xception", pixel_range=(-1.0, 1.0), **PLAIN),
    "keras-torch": _keras("torch: DenseNet"),
    "keras-raw": Named(
        "keras.utils.load_img (nearest pixel) for graphs that normalise: EfficientNet, ConvNeXt",
        fields={**KERAS, "pixel_range": (0.0, 255.0), **PLAIN},
    ),
    "ultralytics": Named(
        "classify_transforms of Ultralytics", fields={"rounding": "torchvision", **PLAIN}
    ),
    "mmpretrain": Named(
        "ResizeEdge and CenterCrop of mmpretrain, by OpenCV",
        resize=_by(256 / 224),
        fields={"rounding": "torchvision", **OPENCV},
    ),
    "paddle": Named(
        "ResizeImage and CropImage of PaddleClas, by OpenCV",
        resize=_by(256 / 224),
        fields=OPENCV,
    ),
}


def describe(text: str, size: Size | None = None) -> Description:
    """Read a recipe by its name, or from a file.

    A file is JSON of transformers (preprocessor_config.json) or timm (config.json), or has what
    torchvision prints for transforms.

    Args:
        text: the name, or the path of the file.
        size: height and width that the graph takes, if they are known.

    Raises:
        BuildError: there is no such recipe, or it cannot be used.
    """
    if text in NAMED:
        return Description(f"recipe {text}", whole(NAMED[text].recipe(size)))
    file = Path(text)
    if not file.is_file():
        raise BuildError(f"there is no recipe or file {text}; --list-recipes lists the names")
    content = _text(file)
    if not content.startswith("{"):
        return Description(file.name, torchvision_text.recipe(content, str(file)))
    config = nested(read_json(file), "image_processor")
    if timm_config.is_timm(config):
        pretrained = nested(config, "pretrained_cfg")
        return Description(*timm_config.recipe(pretrained, file.name, size))
    if huggingface.is_processor(config):
        return Description(file.name, huggingface.recipe(config, str(file)))
    raise BuildError(
        f"{file} is neither a preprocessor_config.json nor a config.json of timm; "
        "give one of these, or a name (--list-recipes)"
    )


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig").strip()
    except OSError as error:
        raise BuildError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BuildError(f"{file} is not UTF-8 text; give JSON, or printed transforms") from error
