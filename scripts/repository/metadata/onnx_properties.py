"""Reads what exporters write into an ONNX file's own metadata.

- `names`: Ultralytics (engine/exporter.py), a Python dictionary; with `task` and `imgsz` for a
  classifier, whose preprocessing is that of `classify_transforms` (data/augment.py).
- `character`: PaddleOCR and RapidOCR, one class a line.
- `labels`, `id2label`, `classes`, `class_names`: JSON, Python, lines or commas.
- `Image.BitmapPixelFormat`, `Image.NominalPixelRange`: onnx/docs/MetadataProps.md, written by
  Custom Vision and ONNXMLTools.
- `model_info labels`, `model_info mean_values` and so on: OpenVINO Training Extensions
  (`_embed_onnx_metadata`), for pixels in 0..255 and labels with `_` for a space.
- `mean`, `std`: of whoever exported it by hand.

Nodes of ai.onnx.ml, such as the ZipMap of sklearn-onnx, hold labels, too: `classlabels_strings`.
"""

import ast
import json
import logging
from collections.abc import Mapping
from typing import Any

from onnx import ModelProto

from scripts.repository import labels
from scripts.repository.description import Description
from scripts.repository.errors import BuildError
from scripts.repository.metadata import custom_vision
from scripts.repository.metadata.fields import refused, whole
from scripts.repository.metadata.normalization import mean_and_std
from scripts.repository.steps.preprocess.recipe import Recipe, Size

logger = logging.getLogger(__name__)

LABELS = ("names", "id2label", "class_names", "labels", "classes", "character")
OPENVINO = "model_info "
NODE_LABELS = "classlabels_strings"


def describe(
    model: ModelProto, *, size: Size | None = None, preprocessing: bool = True
) -> list[Description]:
    """Read labels and preprocessing from the metadata of an ONNX file.

    Args:
        model: the file.
        size: height and width that the graph takes, if they are fixed.
        preprocessing: whether the preprocessing is wanted.

    Raises:
        BuildError: the preprocessing cannot be said in a recipe.
    """
    said = {entry.key: entry.value.strip() for entry in model.metadata_props if entry.value.strip()}
    found = [_labels(said), _openvino_labels(said), _node_labels(model)]
    if preprocessing:
        readers = (_ultralytics, custom_vision.describe_pixels, _openvino, _mean_and_std)
        found += [reader(said, size) for reader in readers]
    return [description for description in found if description]


def _origin(key: str) -> str:
    return f"the file's metadata `{key}`"


def _labels(said: Mapping[str, str]) -> Description | None:
    for key in LABELS:
        value = _parsed(said.get(key, ""))
        if isinstance(value, dict | list | tuple) and len(value):
            try:
                return Description(_origin(key), labels=labels.from_value(value, _origin(key)))
            except BuildError as error:
                logger.warning("%s", error)
    return None


def _node_labels(model: ModelProto) -> Description | None:
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == NODE_LABELS and attribute.strings:
                origin = f"the file's {node.op_type} node"
                names = [text.decode("utf-8", "replace") for text in attribute.strings]
                return Description(origin, labels=labels.from_value(names, origin))
    return None


def _parsed(text: str) -> Any:  # noqa: ANN401 - whatever JSON or Python holds
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    for separator in ("\n", ","):
        if separator in text:
            return [part.strip() for part in text.split(separator)]
    return None


def _ultralytics(said: Mapping[str, str], _: Size | None) -> Description | None:
    sides = _numbers(said.get("imgsz", ""))
    if said.get("task") != "classify" or sides is None:
        return None
    origin = f"{_origin('imgsz')} of Ultralytics"
    # Up to 8.0, the centre is cropped first and resized by OpenCV, without antialiasing.
    is_old = said.get("version", "").startswith("8.0.")
    try:
        crop = (int(sides[0]), int(sides[-1]))
        recipe = Recipe(
            resize=crop,
            crop=crop,
            rounding="torchvision",
            antialias=not is_old,
            mean=(0.0,),
            std=(1.0,),
        )
    except (ArithmeticError, ValueError) as error:
        raise refused(origin, f"cannot use it: {error}") from error
    return Description(origin, whole(recipe))


def _openvino_labels(said: Mapping[str, str]) -> Description | None:
    if names := said.get(f"{OPENVINO}labels", "").split():
        key = f"{OPENVINO}labels"
        return Description(_origin(key), labels=tuple(name.replace("_", " ") for name in names))
    return None


def _openvino(said: Mapping[str, str], size: Size | None) -> Description | None:
    values = {
        name: _numbers(said.get(f"{OPENVINO}{name}_values", "")) for name in ("mean", "scale")
    }
    if not any(values.values()):
        return None
    fields: dict[str, Any] = {
        "pixel_range": (0.0, 255.0),
        "mean": values["mean"] or (0.0,),
        "std": values["scale"] or (1.0,),
    }
    if said.get(f"{OPENVINO}resize_type") == "standard" and size:
        fields |= {"mode": "squash", "resize": size, "crop": size}
    return Description(f"{_origin(OPENVINO + 'mean_values')} of OpenVINO", fields)


def _mean_and_std(said: Mapping[str, str], _: Size | None) -> Description | None:
    values = {name: _numbers(said.get(name, "")) for name in ("mean", "std")}
    if not values["mean"] and not values["std"]:
        return None
    fields = mean_and_std(values["mean"], values["std"])
    return Description(_origin("` and `".join(fields)), fields)


def _numbers(text: str) -> tuple[float, ...] | None:
    value = _parsed(text)
    numbers = value if isinstance(value, list | tuple) else text.split()
    try:
        return tuple(map(float, numbers)) or None
    except (OverflowError, TypeError, ValueError):
        return None
