"""Small networks with random weights whose scores differ clearly between photographs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.exports.rows import PHOTOGRAPHS

CLASSES = 10
CROPS = 48


def plain(size: int = 224, *, classes: int = CLASSES, channels: int = 3, grid: int = 2) -> Any:
    """Build a convolutional network whose last layer sees `grid` x `grid` places of the image."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 5, stride=4, padding=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(size // 8 // grid),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8 * grid * grid, classes),
    )


class VisionTransformer(nn.Module):
    """One layer of attention, written as torchvision's ViT is."""

    def __init__(self, width: int = 8, patch: int = 16, places: int = 196) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, places + 1, width) / 4)
        self.layer = nn.TransformerEncoderLayer(
            width, 2, 2 * width, activation="gelu", batch_first=True, norm_first=True
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, image: Any) -> Any:
        places = self.patches(image)
        batch, width = places.shape[0], places.shape[1]
        places = places.reshape(batch, width, -1).permute(0, 2, 1)
        tokens = torch.cat([self.token.expand(batch, -1, -1), places], dim=1) + self.positions
        return self.head(self.layer(tokens)[:, 0])


class ConvNext(nn.Module):
    """One block of ConvNeXt: the channels are moved last for the normalisation."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, width, 8, stride=8)
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head = nn.Linear(width * 16, CLASSES)

    def forward(self, image: Any) -> Any:
        stem = self.stem(image)
        inner = self.norm(self.depthwise(stem).permute(0, 2, 3, 1))
        inner = self.narrow(nn.functional.gelu(self.wide(inner))).permute(0, 3, 1, 2)
        return self.head(nn.functional.avg_pool2d(stem + inner, 7).flatten(1))


class Swin(nn.Module):
    """Attention in windows, which are put in front of the batch by a reshape."""

    def __init__(self, width: int = 16, window: int = 7) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.window = window
        self.stem = nn.Conv2d(3, width, 16, stride=16)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, image: Any) -> Any:
        x = torch.roll(self.norm(self.stem(image).permute(0, 2, 3, 1)), (-3, -3), (1, 2))
        batch, height, width, channels = x.shape
        side = self.window
        x = x.view(batch, height // side, side, width // side, side, channels)
        windows = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, side * side, channels)
        query, key, value = self.qkv(windows).chunk(3, dim=-1)
        weights = (query @ key.transpose(-2, -1) / channels**0.5).softmax(-1)
        return self.head((weights @ value).view(batch, -1, channels).mean(1))


def crops(size: int, channels: int = 3) -> Any:
    """Cut random squares out of the photographs: FP32 [N, channels, size, size] in -2..2."""
    rng = np.random.default_rng(1)
    images = [Image.open(file).convert("RGB" if channels == 3 else "L") for file in PHOTOGRAPHS]
    squares = []
    for number in range(CROPS):
        image = images[number % len(images)]
        side = int(min(image.size) * rng.uniform(0.5, 1))
        left = int(rng.integers(0, image.width - side + 1))
        top = int(rng.integers(0, image.height - side + 1))
        box = (left, top, left + side, top + side)
        square = np.asarray(image.resize((size, size), box=box), np.float32) / 64 - 2
        squares.append(np.atleast_3d(square).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(squares))


def calibrate(
    network: Any, size: int, *, channels: int = 3, spread: float = 2.0, run: Any = None
) -> Any:
    """Set BatchNorm's statistics, and scale the last layer so that its scores have a `spread`."""
    images = crops(size, channels)
    run = run or network
    _measure(run, images, [each for each in network.modules() if isinstance(each, _BatchNorm)])
    network.eval()
    last = [each for each in network.modules() if isinstance(each, nn.Linear)][-1]
    with torch.no_grad():
        scores = run(images)
        factor = spread / (scores - scores.mean(0)).std()
        last.weight.mul_(factor)
        if last.bias is not None:
            last.bias.sub_(scores.mean(0)).mul_(factor)
    return network


def _measure(run: Any, images: Any, layers: list[Any]) -> None:
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    with torch.no_grad():
        run(images)
    for layer in layers:
        layer.momentum = 0.1


def blank(height: int, width: int | None = None, *, channels: int = 3, images: int = 1) -> Any:
    """Make the example that exporters want: FP32 [images, channels, height, width]."""
    return torch.zeros(images, channels, height, width or height)


def export(network: Any, file: Path, image: Any, **options: Any) -> None:
    """Export with torch's default exporter; without options for the one size of the example."""
    torch.onnx.export(network, (image,), str(file), verbose=False, external_data=False, **options)
    model = onnx.load(file)
    for node in model.graph.node:
        del node.metadata_props[:]  # they have paths of this machine
    onnx.save(model, file)


def export_legacy(
    network: Any,
    file: Path,
    image: Any,
    *,
    outputs: Sequence[str] = ("output",),
    dynamic: bool = True,
    **options: Any,
) -> None:
    """Export with torch's older exporter, with the names that its documentation uses."""
    axes = {name: {0: "batch"} for name in ("input", *outputs)} if dynamic else None
    torch.onnx.export(
        network,
        (image,),
        str(file),
        dynamo=False,
        input_names=["input"],
        output_names=list(outputs),
        dynamic_axes=axes,
        **options,
    )
