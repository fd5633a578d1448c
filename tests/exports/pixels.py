"""Writes the digests of the pixels that the frameworks' own preprocessing makes: `pixels.json`.

Run it from the root of the repository, `python -m tests.exports.pixels`, where torchvision, timm,
transformers and OpenCV are installed. `tests/unit/test_exact_decoding.py` compares exact decoding
with the file.
"""

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import transformers
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_eval
from torchvision import models
from torchvision.transforms import v2

from tests import patterns

FILE = Path(__file__).with_suffix(".json")
LIBRARIES = ("pillow", "torchvision", "timm", "transformers", "opencv-python-headless")
Pixels = npt.NDArray[np.uint8]
Transform = Callable[[Image.Image], Pixels]

TORCHVISION = {"rounding": "torchvision"}
TRANSFORMERS = {"rounding": "transformers"}
OPENCV = {"interpolation": "opencv", "antialias": False}


def zoo(resize: int, crop: int) -> Transform:
    """The ONNX Model Zoo's imagenet_preprocess.py."""

    def transform(image: Image.Image) -> Pixels:
        ratio = resize / min(image.size)
        size = (round(ratio * image.width), round(ratio * image.height))
        pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
        top, left = pixels.shape[0] // 2 - crop // 2, pixels.shape[1] // 2 - crop // 2
        return pixels[top : top + crop, left : left + crop]

    return transform


def weights(preset: Any) -> Transform:
    """The transforms of a torchvision weight without its normalisation."""
    transforms = preset.transforms(mean=(0.0,) * 3, std=(1.0,) * 3)
    return lambda image: (
        np.rint(transforms(image).numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
    )


def compose(*transforms: Any) -> Transform:
    """Transforms of torchvision from a Pillow image to another."""
    return lambda image: np.asarray(v2.Compose(transforms)(image))


def timm(size: Any, **options: Any) -> Transform:
    """timm's transforms for evaluation."""
    transforms = transforms_imagenet_eval(size, normalize=False, **options)
    return lambda image: transforms(image).numpy().transpose(1, 2, 0)


def processor(kind: Any, **options: Any) -> Transform:
    """An image processor of transformers, the one that uses Pillow."""
    made = kind(do_rescale=False, do_normalize=False, **options)
    return lambda image: made(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)


def bgr(transform: Transform) -> Transform:
    """Undo the exchange of red and blue, which the graph does here."""
    return lambda image: transform(image)[..., ::-1]


def square(resize: int, crop: int, **fields: Any) -> dict[str, Any]:
    return {"resize": (resize, resize), "crop": (crop, crop), **fields}


VIT = transformers.ViTImageProcessor

CASES: dict[str, tuple[dict[str, Any], Transform]] = {
    "zoo resnet": (square(256, 224), zoo(256, 224)),
    "zoo mobilenet": (square(224, 224), zoo(224, 224)),
    "torchvision resnet50 V1": (
        square(256, 224, **TORCHVISION),
        weights(models.ResNet50_Weights.IMAGENET1K_V1),
    ),
    "torchvision resnet50 V2": (
        square(232, 224, **TORCHVISION),
        weights(models.ResNet50_Weights.IMAGENET1K_V2),
    ),
    "torchvision efficientnet_b1 V2": (
        square(255, 240, **TORCHVISION),
        weights(models.EfficientNet_B1_Weights.IMAGENET1K_V2),
    ),
    "torchvision swin_t": (
        square(232, 224, interpolation="bicubic", **TORCHVISION),
        weights(models.Swin_T_Weights.IMAGENET1K_V1),
    ),
    "torchvision inception_v3": (
        square(342, 299, **TORCHVISION),
        weights(models.Inception_V3_Weights.IMAGENET1K_V1),
    ),
    "torchvision squash": (
        {"resize": (240, 320), "crop": (224, 299), "mode": "squash", **TORCHVISION},
        compose(v2.Resize((240, 320)), v2.CenterCrop((224, 299))),
    ),
    "torchvision grey": (
        square(64, 57, colour="grey", mean=(0.5,), std=(0.5,), **TORCHVISION),
        compose(v2.Grayscale(), v2.Resize(64), v2.CenterCrop(57)),
    ),
    "timm centre": (
        square(248, 224, interpolation="bicubic", **TORCHVISION),
        timm(224, crop_pct=0.9, interpolation="bicubic"),
    ),
    "timm not square": (
        {"resize": (219, 292), "crop": (192, 256), **TORCHVISION},
        timm((192, 256), crop_pct=0.875, interpolation="bilinear"),
    ),
    "timm squash": (
        square(235, 224, mode="squash", interpolation="bicubic", **TORCHVISION),
        timm(224, crop_pct=0.95, crop_mode="squash", interpolation="bicubic"),
    ),
    "timm border": (
        square(224, 224, mode="letterbox", interpolation="bicubic", fill=(124, 116, 104))
        | TORCHVISION,
        timm(224, crop_pct=1.0, crop_mode="border", interpolation="bicubic"),
    ),
    "timm border that is cropped": (
        square(256, 224, mode="letterbox", interpolation="bicubic", fill=(128, 128, 128))
        | TORCHVISION,
        timm(224, crop_pct=0.875, crop_mode="border", interpolation="bicubic", mean=(0.5,) * 3),
    ),
    "timm lanczos": (
        square(320, 299, interpolation="lanczos", **TORCHVISION),
        timm(299, crop_pct=0.932, interpolation="lanczos"),
    ),
    "transformers ViT": (
        square(224, 224, mode="squash", **TRANSFORMERS),
        processor(VIT, size={"height": 224, "width": 224}),
    ),
    "transformers Swin": (
        square(224, 224, mode="squash", interpolation="bicubic", **TRANSFORMERS),
        processor(VIT, size={"height": 224, "width": 224}, resample=3),
    ),
    "transformers DeiT": (
        square(256, 224, mode="squash", interpolation="bicubic", **TRANSFORMERS),
        processor(transformers.DeiTImageProcessor),
    ),
    "transformers ConvNeXt": (
        square(256, 224, interpolation="bicubic", **TRANSFORMERS),
        processor(
            transformers.ConvNextImageProcessor,
            size={"shortest_edge": 224},
            crop_pct=0.875,
            resample=3,
        ),
    ),
    "transformers ConvNeXt of 384": (
        square(384, 384, mode="squash", interpolation="bicubic", **TRANSFORMERS),
        processor(transformers.ConvNextImageProcessor, size={"shortest_edge": 384}, resample=3),
    ),
    "transformers MobileViT": (
        square(288, 256, colour="bgr", **TRANSFORMERS),
        bgr(
            processor(
                transformers.MobileViTImageProcessor,
                size={"shortest_edge": 288},
                crop_size={"height": 256, "width": 256},
            )
        ),
    ),
    "transformers EfficientNet": (
        square(346, 346, mode="squash", interpolation="nearest", **TRANSFORMERS),
        processor(transformers.EfficientNetImageProcessor, include_top=False),
    ),
    "transformers EfficientNet, cropped": (
        square(346, 289, mode="squash", interpolation="nearest", **TRANSFORMERS),
        processor(
            transformers.EfficientNetImageProcessor,
            include_top=False,
            do_center_crop=True,
            crop_size={"height": 289, "width": 289},
        ),
    ),
    "transformers CLIP": (
        square(224, 224, interpolation="bicubic", **TRANSFORMERS),
        processor(transformers.CLIPImageProcessor, do_convert_rgb=True),
    ),
    "transformers BiT with an odd crop": (
        square(160, 147, interpolation="bicubic", **TRANSFORMERS),
        processor(
            transformers.BitImageProcessor,
            size={"shortest_edge": 160},
            crop_size={"height": 147, "width": 147},
        ),
    ),
    "transformers box": (
        square(224, 224, mode="squash", interpolation="box", **TRANSFORMERS),
        processor(VIT, resample=4),
    ),
    "transformers hamming": (
        square(224, 224, mode="squash", interpolation="hamming", **TRANSFORMERS),
        processor(VIT, resample=5),
    ),
    "opencv reduced": (
        square(96, 96, mode="squash", **OPENCV),
        lambda image: cv2.resize(np.asarray(image), (96, 96), interpolation=cv2.INTER_LINEAR),
    ),
    "opencv enlarged": (
        square(640, 640, mode="squash", **OPENCV),
        lambda image: cv2.resize(np.asarray(image), (640, 640), interpolation=cv2.INTER_LINEAR),
    ),
}


def digest(pixels: Pixels, crop: tuple[int, int]) -> str:
    """Return the SHA-256 of UINT8 pixels [height, width, channels]."""
    if pixels.dtype != np.uint8 or pixels.shape[:2] != tuple(crop):
        raise ValueError(f"{pixels.dtype} {pixels.shape}, and not UINT8 of {crop}")
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def main() -> None:
    """Write the file."""
    recipes = {}
    for name, (fields, transform) in CASES.items():
        digests = {
            " ".join(map(str, each)): digest(
                transform(patterns.picture(*each).convert("RGB")), fields["crop"]
            )
            for each in patterns.PICTURES
        }
        recipes[name] = {"recipe": fields, "sha256": digests}
    versions = {library: version(library) for library in LIBRARIES}
    FILE.write_text(json.dumps({"versions": versions, "pixels": recipes}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
