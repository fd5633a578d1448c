"""Folders as the Hugging Face Hub has them: of transformers with Optimum, and of timm."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
import transformers
from optimum.exporters.onnx import main_export
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import save_for_hf
from torch import nn

from tests.exports.networks import CLASSES, blank, calibrate, export_legacy
from tests.exports.reference import Reference
from tests.exports.rows import PHOTOGRAPHS

NAMES = tuple(f"flower {number}" for number in range(CLASSES))
LABELS = {
    "num_labels": CLASSES,
    "id2label": dict(enumerate(NAMES)),
    "label2id": {name: number for number, name in enumerate(NAMES)},
}
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


class Logits(nn.Module):
    """A classifier of transformers as a network from images to scores."""

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Any) -> Any:
        return self.classifier(pixel_values=images).logits


def _optimum(classifier: Callable[[], Any], processor: Any) -> Callable[[Path], Reference]:
    """Export a folder with Optimum; the files of the processor and the labels lie beside it."""

    def make(folder: Path) -> Reference:
        torch.manual_seed(0)
        network = classifier()
        _widen(network)
        size = processor(Image.open(PHOTOGRAPHS[0]), return_tensors="np")["pixel_values"].shape[-1]
        calibrate(network, size, run=Logits(network))
        with TemporaryDirectory() as saved:
            network.save_pretrained(saved)
            processor.save_pretrained(saved)
            main_export(saved, folder, task="image-classification")
        return Reference(
            lambda image: processor(image, return_tensors="np")["pixel_values"][0], labels=NAMES
        )

    return make


def _widen(network: nn.Module) -> None:
    """Make random weights of a transformer so large that its layers matter."""
    for name, weight in network.named_parameters():
        if weight.ndim == 2 or "position" in name or "cls_token" in name:
            nn.init.normal_(weight, std=0.3)


def _vit() -> Any:
    config = transformers.ViTConfig(**SMALL, **LABELS, image_size=64, patch_size=8)
    return transformers.ViTForImageClassification(config)


def _resnet() -> Any:
    config = transformers.ResNetConfig(
        **LABELS, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    return transformers.ResNetForImageClassification(config)


def _mobilevit() -> Any:
    config = transformers.MobileViTConfig(
        **LABELS, image_size=64, hidden_sizes=[8, 8, 12], neck_hidden_sizes=[4, 4, 4, 8, 8, 12, 16],
        num_attention_heads=2, expand_ratio=1.0, mlp_ratio=1.0,
    )  # fmt: skip
    return transformers.MobileViTForImageClassification(config)


def _swin() -> Any:
    config = transformers.SwinConfig(
        **LABELS, image_size=64, embed_dim=8, depths=[2], num_heads=[2], window_size=4
    )
    return transformers.SwinForImageClassification(config)


def _dinov2() -> Any:
    config = transformers.Dinov2Config(
        **{**SMALL, "mlp_ratio": 1}, **LABELS, image_size=56, patch_size=14
    )
    return transformers.Dinov2ForImageClassification(config)


def _timm(folder: Path) -> Reference:
    """Write the folder that timm's `push_to_hf_hub` writes, and an export in it."""
    torch.manual_seed(0)
    network = timm.create_model(
        "convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 12, 16), num_classes=CLASSES
    )
    network.pretrained_cfg |= {
        "input_size": (3, 64, 64), "interpolation": "bicubic", "crop_pct": 0.9,
        "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "num_classes": CLASSES,
        "label_names": list(NAMES),
    }  # fmt: skip
    calibrate(network, 64)
    save_for_hf(network, folder, safe_serialization=True)
    (folder / "model.safetensors").unlink()
    export_legacy(network, folder / "model.onnx", blank(64))
    transform = create_transform(**resolve_data_config({}, model=network))
    return Reference(lambda image: transform(image).numpy(), labels=NAMES)


SIZE = {"height": 64, "width": 64}
MAKERS: dict[str, Callable[[Path], Reference]] = {
    "hf_vit": _optimum(_vit, transformers.ViTImageProcessor(size=SIZE)),
    "hf_resnet": _optimum(
        _resnet, transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875)
    ),
    "hf_mobilevit": _optimum(
        _mobilevit,
        transformers.MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size=SIZE),
    ),
    "hf_swin": _optimum(
        _swin, transformers.ViTImageProcessor(size=SIZE, resample=3, **IMAGENET)
    ),
    "hf_dinov2": _optimum(
        _dinov2,
        transformers.BitImageProcessor(
            size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}, resample=3,
            **IMAGENET,
        ),
    ),
    "timm": _timm,
}  # fmt: skip
