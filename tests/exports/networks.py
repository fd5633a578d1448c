"""Small networks with random weights whose scores differ clearly between photographs."""

from pathlib import Path
from typing import Any

import numpy as np
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


def export(network: Any, file: Path, size: int, *, channels: int = 3, **options: Any) -> None:
    """Export with torch's default exporter as people call it: one image, fixed sizes."""
    image = torch.zeros(1, channels, size, size)
    torch.onnx.export(network, (image,), str(file), verbose=False, external_data=False, **options)


def export_legacy(
    network: Any, file: Path, size: int, *, channels: int = 3, dynamic: bool = True, **options: Any
) -> None:
    """Export with torch's older exporter, with the names that its documentation uses."""
    axes = {"dynamic_axes": {"input": {0: "batch"}, "output": {0: "batch"}}} if dynamic else {}
    torch.onnx.export(
        network,
        (torch.zeros(1, channels, size, size),),
        str(file),
        dynamo=False,
        input_names=["input"],
        output_names=["output"],
        **axes,
        **options,
    )
