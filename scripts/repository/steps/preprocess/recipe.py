"""Recipes: how an image becomes the tensor that a classifier was trained with."""

import json
from dataclasses import asdict, dataclass

RGB = tuple[float, float, float]

# Mean and standard deviation of ImageNet's training set for pixel values in 0..1, from the ONNX
# Model Zoo's vision/classification/imagenet_preprocess.py.
IMAGENET_MEAN: RGB = (0.485, 0.456, 0.406)
IMAGENET_STD: RGB = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Recipe:
    """One preprocessing variant.

    The image's shorter side is resized to `resize` pixels, the centre `crop` x `crop` pixels are
    kept, and each channel becomes `(pixel / 255 - mean) / std`.

    Raises:
        ValueError: the numbers are invalid or do not fit together.
    """

    resize: int = 256
    crop: int = 224
    mean: RGB = IMAGENET_MEAN
    std: RGB = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.crop < 1:
            raise ValueError(f"a crop of {self.crop} pixels is too small; the minimum is 1")
        if self.resize < self.crop:
            raise ValueError(
                f"a crop of {self.crop} pixels does not fit an image resized to {self.resize}; "
                f"resize to at least {self.crop}"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, not {self.std}")

    def to_json(self) -> str:
        """Write the recipe as the value of the step's `recipe` parameter."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Read the output of `to_json`."""
        fields = json.loads(text)
        return cls(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})
