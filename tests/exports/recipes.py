"""Preprocessing of torchvision, Pillow, OpenCV and CLIP, for a few small networks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import ImageOps
from torch import nn
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from tests.exports.networks import blank, calibrate, export_legacy, plain
from tests.exports.reference import Reference
from tests.exports.rows import FILES

SIZE = 96
RESIZE = 104
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def _composed(*steps: Any) -> Callable[[Any], Any]:
    composed = transforms.Compose(steps)
    return lambda image: composed(image).numpy()


def _torchvision(
    interpolation: str, mean: tuple[float, ...] = IMAGENET[0], std: tuple[float, ...] = IMAGENET[1]
) -> Callable[[Path], Reference]:
    preprocess = _composed(
        transforms.Resize(RESIZE, InterpolationMode(interpolation)),
        transforms.CenterCrop(SIZE),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    )
    return lambda _: Reference(preprocess)


def _no_antialias(_: Path) -> Reference:
    preprocess = _composed(
        transforms.PILToTensor(),
        transforms.Resize(RESIZE, antialias=False),
        transforms.CenterCrop(SIZE),
        transforms.ConvertImageDtype(torch.float32),
        transforms.Normalize(*IMAGENET),
    )
    return Reference(preprocess)


def _torchvision_file(folder: Path) -> Reference:
    preset = ImageClassification(
        crop_size=SIZE, resize_size=RESIZE, interpolation=InterpolationMode.BICUBIC
    )
    (FILES / "torchvision.txt").write_text(f"{preset}\n")
    return Reference(lambda image: preset(image).numpy())


def _squashed(interpolation: str, size: tuple[int, int]) -> Callable[[Any], Any]:
    return _composed(
        transforms.Resize(size, InterpolationMode(interpolation)),
        transforms.ToTensor(),
        transforms.Normalize(*IMAGENET),
    )


def _nearest(folder: Path) -> Reference:
    return Reference(_squashed("nearest", (SIZE, SIZE)))


def _opencv(folder: Path) -> Reference:
    network = calibrate(plain(SIZE, grid=4), SIZE)
    with torch.no_grad():
        network[0].weight.div_(50)  # it was calibrated for -2..2
    export_legacy(network, folder / "model.onnx", blank(SIZE))

    def preprocess(image: Any) -> Any:
        blue_first = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)
        return cv2.dnn.blobFromImage(blue_first, 1, (SIZE, SIZE), (103.939, 116.779, 123.68))[0]

    return Reference(preprocess)


def _letterbox(folder: Path) -> Reference:
    normalize = _composed(transforms.ToTensor(), transforms.Normalize(*IMAGENET))
    bilinear, grey = 2, (114, 114, 114)
    return Reference(
        lambda image: normalize(ImageOps.pad(image, (SIZE, SIZE), bilinear, color=grey))
    )


def _plain(folder: Path) -> Reference:
    export_legacy(calibrate(plain(SIZE, grid=4), SIZE), folder / "model.onnx", blank(SIZE))
    return Reference(_squashed("bilinear", (SIZE, SIZE)))


def _wide(folder: Path) -> Reference:
    """Export for 64 x 96: the last layer sees 4 x 4 places of other proportions."""
    network = plain(64, grid=4)
    network[6] = nn.AvgPool2d((2, 3))
    run = nn.Sequential(nn.Upsample((64, 96)), network)
    calibrate(network, 64, run=run)
    export_legacy(network, folder / "model.onnx", blank(64, 96))
    return Reference(_squashed("bilinear", (64, 96)))


def _grey(folder: Path) -> Reference:
    network = calibrate(plain(32, channels=1, grid=4), 32, channels=1)
    export_legacy(network, folder / "model.onnx", blank(32, channels=1))
    preprocess = _composed(
        transforms.Grayscale(),
        transforms.Resize(36),
        transforms.CenterCrop(32),
        transforms.ToTensor(),
        transforms.Normalize(0.5, 0.5),
    )
    return Reference(preprocess)


def _clip(folder: Path) -> Reference:
    """Preprocess as OpenAI's clip.py does."""
    preprocess = _composed(
        transforms.Resize(224, InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(*CLIP),
    )
    return Reference(preprocess)


MAKERS: dict[str, Callable[[Path], Reference]] = {
    "plain": _plain,
    "torchvision": _torchvision("bilinear"),
    "torchvision_file": _torchvision_file,
    "nearest": _nearest,
    "lanczos": _torchvision("lanczos"),
    "box": _torchvision("box"),
    "hamming": _torchvision("hamming"),
    "no_antialias": _no_antialias,
    "opencv": _opencv,
    "letterbox": _letterbox,
    "minus_one_to_one": _torchvision("bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "mean_in_0_255": _torchvision("bilinear"),
    "wide": _wide,
    "grey": _grey,
    "clip": _clip,
}
