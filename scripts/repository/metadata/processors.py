"""The image processors of Hugging Face's transformers: what each does with absent fields.

The defaults are those of `transformers/models/*/image_processing_*.py`, version 4.57.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HALF = (0.5, 0.5, 0.5)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
BILINEAR, BICUBIC, NEAREST = 2, 3, 0

COMMON = {
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": HALF,
    "image_std": HALF,
    "resample": BILINEAR,
}
IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
OPENAI_CLIP = {"image_mean": CLIP_MEAN, "image_std": CLIP_STD, "resample": BICUBIC}
SHORTER_224 = {"size": {"shortest_edge": 224}}
SHORTER_256 = {"size": {"shortest_edge": 256}}
SQUASH_224 = {"size": 224}
CROP_224 = {"do_center_crop": True, "crop_size": 224}


@dataclass(frozen=True)
class Processor:
    """One class of image processors.

    Attributes:
        defaults: the values of fields that a file leaves out.
        crops: whether it can crop; others ignore `do_center_crop`, unless they are fast.
        normalizes: whether it can subtract a mean and divide by a deviation.
        resizing: `plain`, or the class whose own rule it follows.
        fast_defaults: where the fast variant differs.
    """

    defaults: Mapping[str, Any]
    crops: bool = True
    normalizes: bool = True
    resizing: str = "plain"
    fast_defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def squashes(self) -> bool:
        """Whether a `size` that is a single number means both sides."""
        size = self.defaults["size"]
        return not (isinstance(size, dict) and "shortest_edge" in size)


def _clip() -> Processor:
    return Processor({**OPENAI_CLIP, **SHORTER_224, **CROP_224})


PROCESSORS = {
    "Beit": Processor(
        {"size": 256, "resample": BICUBIC, **CROP_224},
        fast_defaults={"size": 224, "do_center_crop": False},
    ),
    "Bit": _clip(),
    "CLIP": _clip(),
    "ConvNext": Processor(
        {"size": {"shortest_edge": 384}, "crop_pct": 224 / 256}, crops=False, resizing="ConvNext"
    ),
    "DINOv3ViT": Processor({**IMAGENET, **SQUASH_224}),
    "DPT": Processor({"size": 384, "resample": BICUBIC}, crops=False),
    "DeiT": Processor({"size": 256, "resample": BICUBIC, **CROP_224}),
    "EfficientFormer": Processor({**IMAGENET, **SQUASH_224, "resample": BICUBIC, **CROP_224}),
    "EfficientNet": Processor(
        {"size": 346, "crop_size": 289, "resample": NEAREST, "include_top": True},
    ),
    "Levit": Processor(
        {**IMAGENET, **SHORTER_224, "resample": BICUBIC, **CROP_224}, resizing="Levit"
    ),
    "MobileNetV1": Processor({**SHORTER_256, **CROP_224}),
    "MobileNetV2": Processor({**SHORTER_256, **CROP_224}),
    "MobileViT": Processor(
        {**SHORTER_224, "do_center_crop": True, "crop_size": 256, "do_flip_channel_order": True},
        normalizes=False,
    ),
    "PoolFormer": Processor(
        {**IMAGENET, **SHORTER_224, "resample": BICUBIC, "crop_pct": 0.9, **CROP_224},
        resizing="PoolFormer",
    ),
    "Pvt": Processor({**IMAGENET, **SQUASH_224}, crops=False),
    "Segformer": Processor({**IMAGENET, "size": 512}, crops=False),
    "Siglip": Processor({**SQUASH_224, "resample": BICUBIC}, crops=False),
    "ViT": Processor(SQUASH_224, crops=False),
    "ViTHybrid": _clip(),
}

# The class by the `model_type` of config.json, for files that do not name it; from
# `transformers/models/auto/image_processing_auto.py`.
MODEL_TYPES = {
    "beit": "Beit",
    "bit": "Bit",
    "clip": "CLIP",
    "convnext": "ConvNext",
    "convnextv2": "ConvNext",
    "cvt": "ConvNext",
    "data2vec-vision": "Beit",
    "deit": "DeiT",
    "dinat": "ViT",
    "dinov2": "Bit",
    "dinov2_with_registers": "Bit",
    "efficientformer": "EfficientFormer",
    "efficientnet": "EfficientNet",
    "focalnet": "Bit",
    "hiera": "Bit",
    "ijepa": "ViT",
    "levit": "Levit",
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "mobilevit": "MobileViT",
    "mobilevitv2": "MobileViT",
    "nat": "ViT",
    "poolformer": "PoolFormer",
    "pvt": "Pvt",
    "pvt_v2": "Pvt",
    "regnet": "ConvNext",
    "resnet": "ConvNext",
    "segformer": "Segformer",
    "siglip": "Siglip",
    "swiftformer": "ViT",
    "swin": "ViT",
    "swinv2": "ViT",
    "van": "ConvNext",
    "vit": "ViT",
    "vit_hybrid": "ViTHybrid",
    "vit_msn": "ViT",
}
