"""Reads what Hugging Face's transformers writes: preprocessor_config.json and config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.repository import labels
from scripts.repository.description import Description
from scripts.repository.metadata.fields import read_json, refused, square, whole
from scripts.repository.metadata.processors import COMMON, MODEL_TYPES, PROCESSORS, Processor
from scripts.repository.steps.preprocess.recipe import Recipe, Size, written

PREPROCESSOR, PROCESSOR, MODEL = (
    "preprocessor_config.json",
    "processor_config.json",
    "config.json",
)
# Pillow's numbers of filters.
INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
# From this size on, ConvNeXT's processor does not crop.
CONVNEXT_SQUASHES = 384
# Fields that change pixels in ways that a recipe cannot say, and the value that does nothing.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "do_pad": (False,),
    "do_color_quantize": (False,),
    "do_grayscale": (False,),
    "keep_aspect_ratio": (False,),
    "ensure_multiple_of": (1,),
    "size_divisor": (),
    "do_align_long_axis": (False,),
    "do_thumbnail": (False,),
}


def describe_preprocessing(folder: Path) -> Description | None:
    """Read the image processor's file in a folder, if there is one.

    Raises:
        BuildError: the file is damaged, or asks for what a recipe cannot say.
    """
    for name in (PREPROCESSOR, PROCESSOR):
        if (folder / name).is_file():
            config = read_json(folder / name)
            config = config.get("image_processor", config)
            if name == PREPROCESSOR or is_processor(config):
                model = folder / MODEL
                model_type = read_json(model).get("model_type") if model.is_file() else None
                return Description(name, recipe(config, name, model_type=model_type))
    return None


def describe_model(folder: Path) -> Description | None:
    """Read labels and kind of scores from a model's config.json, if it is one of transformers.

    `pipeline("image-classification")` uses a sigmoid for `multi_label_classification` and for one
    label; of one label, X, this makes the labels of both classes, `not X` and `X`.

    Raises:
        BuildError: the file is damaged.
    """
    if not (folder / MODEL).is_file():
        return None
    config = read_json(folder / MODEL)
    if not config.get("id2label"):
        return None
    names = labels.from_value({"id2label": config["id2label"]}, MODEL)
    is_single = len(names) == 1
    independent = is_single or config.get("problem_type") == "multi_label_classification"
    if is_single:
        names = (f"not {names[0]}", names[0])
    return Description(MODEL, labels=names, scores="sigmoid" if independent else None)


def is_processor(config: Mapping[str, Any]) -> bool:
    """Tell whether a JSON object configures an image processor."""
    return any(
        name in config for name in ("image_processor_type", "feature_extractor_type", "image_mean")
    )


def recipe(
    config: Mapping[str, Any], origin: str, *, model_type: str | None = None
) -> dict[str, Any]:
    """Derive the recipe from an image processor's configuration.

    The result is that of the processors that use Pillow, exactly. Those on tensors (`...Fast`)
    differ from it by 0.01 grey levels on average and 2 at most, more only with the nearest pixel.

    Raises:
        BuildError: a value is of the wrong type, or a recipe cannot say it.
    """
    name, is_fast = _class(config, origin, model_type)
    processor = PROCESSORS[name]
    # Null is as good as absent, but PoolFormer resizes without a margin for it.
    significant = {"crop_pct"} if processor.resizing == "PoolFormer" else set()
    given = {key: value for key, value in config.items() if value is not None or key in significant}
    defaults = {**COMMON, **processor.defaults, **(processor.fast_defaults if is_fast else {})}
    fields = defaults | given
    for field, harmless in UNSUPPORTED.items():
        if field in given and given[field] not in harmless:
            raise refused(origin, f"{field} is {given[field]}, which a recipe cannot say")
    try:
        mode, resize, crop = _geometry(fields, processor, is_fast=is_fast)
        return whole(
            Recipe(
                resize=resize,
                crop=crop,
                mode=mode,
                # The fast ConvNeXT processor crops with torchvision's function.
                rounding="torchvision" if is_fast and name == "ConvNext" else "transformers",
                interpolation=INTERPOLATIONS[fields["resample"]],
                colour="bgr" if fields.get("do_flip_channel_order") else "rgb",
                **_normalization(fields, processor),
            )
        )
    except KeyError as error:
        raise refused(origin, f"it has no {error}") from error
    except (IndexError, TypeError, ValueError) as error:
        raise refused(origin, f"cannot use it: {error}") from error


def _class(config: Mapping[str, Any], origin: str, model_type: str | None) -> tuple[str, bool]:
    """Find the name of the processor's class, and whether it is the fast variant."""
    written_name = config.get("image_processor_type") or config.get("feature_extractor_type")
    if written_name is None:
        if model_type not in MODEL_TYPES:
            raise refused(origin, "it names no image_processor_type")
        return MODEL_TYPES[model_type], False
    name = str(written_name).replace("FeatureExtractor", "ImageProcessor")
    base, _, variant = name.partition("ImageProcessor")
    if base not in PROCESSORS or variant not in {"", "Fast", "Pil"}:
        raise refused(origin, f"its image_processor_type {written_name} is not supported")
    return base, variant == "Fast"


def _geometry(
    fields: Mapping[str, Any], processor: Processor, *, is_fast: bool
) -> tuple[str, Size, Size]:
    """Return mode, resize and crop of the recipe."""
    if not fields["do_resize"]:
        raise ValueError("do_resize is false, so that images keep their own sizes")
    mode, resize = _size(fields["size"], squashes=processor.squashes)
    crop = resize if mode == "squash" else None
    if processor.resizing == "ConvNext":
        mode, resize, crop = _convnext(mode, resize, fields["crop_pct"])
    elif processor.resizing == "Levit" and mode == "shorter":
        resize = square(int(256 / 224 * resize[0]))
    elif processor.resizing == "PoolFormer" and fields["crop_pct"] is not None:
        mode = "shorter" if resize[0] == resize[1] else mode
        resize = (int(resize[0] / fields["crop_pct"]), int(resize[1] / fields["crop_pct"]))
        crop = resize if mode == "squash" else None
    if fields.get("do_center_crop") and (processor.crops or is_fast):
        crop = _crop_size(fields["crop_size"])
    if crop is None:
        raise ValueError("size has only shortest_edge and do_center_crop is false")
    if any(side < kept for side, kept in zip(resize, crop, strict=True)):
        raise ValueError(
            f"crop_size {written(crop)} exceeds size {written(resize)}, so that black is added"
        )
    return mode, resize, crop


def _convnext(mode: str, resize: Size, crop_pct: float) -> tuple[str, Size, Size]:
    if mode != "shorter":
        raise ValueError("size has no shortest_edge")
    if resize[0] >= CONVNEXT_SQUASHES:
        return "squash", resize, resize
    return "shorter", square(int(resize[0] / crop_pct)), resize


def _size(size: Any, *, squashes: bool) -> tuple[str, Size]:  # noqa: ANN401
    """Read `size` in all its forms: a number, two, or a dictionary."""
    if isinstance(size, int):
        return ("squash" if squashes else "shorter"), square(size)
    if isinstance(size, list | tuple):
        height, width = size
        return "squash", (int(height), int(width))
    if not isinstance(size, Mapping):
        raise ValueError(f"size is {size!r}")
    sides = {key: value for key, value in size.items() if value is not None}
    if set(sides) == {"height", "width"}:
        return "squash", (int(sides["height"]), int(sides["width"]))
    if set(sides) == {"shortest_edge"}:
        return "shorter", square(int(sides["shortest_edge"]))
    raise ValueError(f"size has {', '.join(sides) or 'no side'}, which a recipe cannot say")


def _crop_size(size: Any) -> Size:  # noqa: ANN401
    mode, crop = _size(size, squashes=True)
    if mode != "squash":
        raise ValueError("crop_size has no height and width")
    return crop


def _normalization(fields: Mapping[str, Any], processor: Processor) -> dict[str, Any]:
    scale = fields["rescale_factor"] if fields["do_rescale"] else 1
    black = -1.0 if fields["do_rescale"] and fields.get("rescale_offset") else 0.0
    mean, std = _channels(0), _channels(1)
    if processor.normalizes and fields["do_normalize"]:
        mean, std = _channels(fields["image_mean"]), _channels(fields["image_std"])
    if fields.get("include_top"):  # EfficientNet divides by the deviation once more
        again = _channels(fields["image_std"])
        std = tuple(value * std[index % len(std)] for index, value in enumerate(again))
    return {"pixel_range": (black, 255 * scale + black), "mean": mean, "std": std}


def _channels(value: Any) -> tuple[float, ...]:  # noqa: ANN401
    return tuple(map(float, value if isinstance(value, list | tuple) else [value]))
