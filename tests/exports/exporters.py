"""Exports of torch, for the preprocessing of the ONNX Model Zoo."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.exports.networks import (
    ConvNext,
    Swin,
    VisionTransformer,
    blank,
    calibrate,
    export,
    export_legacy,
    plain,
)
from tests.exports.reference import Reference, channels_first, pixels, zoo


class Wrapped(nn.Module):
    """A network with other arithmetic before and after it."""

    def __init__(
        self,
        network: Any,
        before: Callable[[Any], Any] = lambda image: image,
        after: Callable[[Any], Any] = lambda scores: scores,
    ) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, image: Any) -> Any:
        return self.after(self.network(self.before(image)))


def _calibrated(**settings: Any) -> Any:
    return calibrate(plain(**settings), 224)


def _dynamo(network: Any) -> Callable[[Path], Reference]:
    def make(folder: Path) -> Reference:
        export(calibrate(network(), 224), folder / "model.onnx", blank(224))
        return Reference(zoo)

    return make


def _dynamo_batch(folder: Path) -> Reference:
    shapes = ({0: torch.export.Dim("batch")},)
    export(_calibrated(), folder / "model.onnx", blank(224, images=2), dynamic_shapes=shapes)
    return Reference(zoo)


def legacy(
    after: Callable[[Any], Any] = lambda scores: scores, **reference: Any
) -> Callable[[Path], Reference]:
    """Export a network, followed by other arithmetic, with the older exporter."""

    def make(folder: Path) -> Reference:
        export_legacy(Wrapped(_calibrated(), after=after), folder / "model.onnx", blank(224))
        return Reference(zoo, **reference)

    return make


def _legacy_vit(folder: Path) -> Reference:
    network = calibrate(VisionTransformer(), 224)
    export_legacy(network, folder / "model.onnx", blank(224), dynamic=False)
    return Reference(zoo)


def _forgot_eval(folder: Path) -> Reference:
    export(_calibrated().train(), folder / "model.onnx", blank(224))
    return Reference(zoo)


def _forgot_eval_legacy(folder: Path) -> Reference:
    training = torch.onnx.TrainingMode.TRAINING
    export_legacy(_calibrated().train(), folder / "model.onnx", blank(224), training=training)
    return Reference(zoo)


def _of_classes(
    classes: int, after: Callable[[Any], Any] = lambda scores: scores, **reference: Any
) -> Callable[[Path], Reference]:
    def make(folder: Path) -> Reference:
        network = _calibrated(classes=classes)
        export_legacy(Wrapped(network, after=after), folder / "model.onnx", blank(224))
        return Reference(zoo, **reference)

    return make


def _fp16(folder: Path) -> Reference:
    export_legacy(_calibrated().half(), folder / "model.onnx", blank(224).half())
    return Reference(lambda image: zoo(image).astype(np.float16))


def _to_unit(image: Any) -> Any:
    return image.float() / 64 - 2


def _own_normalization(folder: Path) -> Reference:
    network = Wrapped(_calibrated(), before=lambda image: (image - 127.5) / 63.75)
    export_legacy(network, folder / "model.onnx", blank(224))
    return Reference(lambda image: channels_first(pixels(image).astype(np.float32)))


def _uint8(folder: Path) -> Reference:
    network = Wrapped(_calibrated(), before=_to_unit)
    export_legacy(network, folder / "model.onnx", blank(224).byte())
    return Reference(lambda image: channels_first(pixels(image)))


def _uint8_nhwc(folder: Path) -> Reference:
    network = Wrapped(_calibrated(), before=lambda image: _to_unit(image.permute(0, 3, 1, 2)))
    export_legacy(network, folder / "model.onnx", blank(224).byte().permute(0, 2, 3, 1))
    return Reference(pixels)


class Two(nn.Module):
    """Scores and the features from which they are computed."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.features, self.head = network[:-1], network[-1]

    def forward(self, image: Any) -> Any:
        features = self.features(image)
        return features, self.head(features)


def _two_outputs(*names: str) -> Callable[[Path], Reference]:
    def make(folder: Path) -> Reference:
        export_legacy(Two(_calibrated()), folder / "model.onnx", blank(224), outputs=names)
        return Reference(zoo, output=1)

    return make


def _imagenet(folder: Path) -> Reference:
    network = calibrate(plain(classes=1000, grid=1), 224, spread=3)
    export_legacy(network, folder / "model.onnx", blank(224))
    return Reference(zoo)


def _maps(folder: Path) -> Reference:
    return legacy(lambda scores: scores[:, :, None, None])(folder)


MAKERS: dict[str, Callable[[Path], Reference]] = {
    "dynamo_one_image": _dynamo(plain),
    "dynamo_vit": _dynamo(VisionTransformer),
    "dynamo_convnext": _dynamo(ConvNext),
    "dynamo_swin": _dynamo(Swin),
    "dynamo_batch": _dynamo_batch,
    "legacy_vit": _legacy_vit,
    "legacy_batch": legacy(),
    "forgot_eval": _forgot_eval,
    "forgot_eval_legacy": _forgot_eval_legacy,
    "fp16": _fp16,
    "uint8": _uint8,
    "uint8_nhwc": _uint8_nhwc,
    "maps": _maps,
    "two_outputs": _two_outputs("features", "logits"),
    "two_outputs_named": _two_outputs("first", "second"),
    "few_classes": _of_classes(3, labels=("cat", "dog", "fox")),
    "one_logit": _of_classes(1, scores="logit", labels=("no", "yes")),
    "one_sigmoid": _of_classes(1, torch.sigmoid, scores="single", labels=("no", "yes")),
    "multi_label": legacy(torch.sigmoid, scores="given"),
    "multi_label_logits": legacy(scores="sigmoid"),
    "probabilities": legacy(lambda scores: scores.softmax(1), scores="given"),
    "log_probabilities": legacy(lambda scores: scores.log_softmax(1)),
    "imagenet": _imagenet,
    "own_normalization": _own_normalization,
}
