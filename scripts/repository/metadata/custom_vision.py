"""Reads the files of a classifier that Azure Custom Vision exported.

Its own example, `python/onnx_predict.py` of the export, opens an image with Pillow, resizes it to
the graph's size whatever its proportions, and then follows the ONNX file's metadata.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.repository.description import Description
from scripts.repository.metadata.fields import read_json, refused
from scripts.repository.steps.preprocess.recipe import Size

MANIFEST, PROPERTIES = "cvexport.manifest", "metadata_properties.json"
PREPROCESS = "CustomVision.Preprocess."
# onnx/docs/MetadataProps.md; keys and values are in any case.
FORMAT, RANGE, GAMMA = "image.bitmappixelformat", "image.nominalpixelrange", "image.colorspacegamma"
COLOURS = {"rgb8": "rgb", "bgr8": "bgr", "gray8": "grey"}
RANGES = {
    "nominalrange_0_255": (0.0, 255.0),
    "normalized_0_1": (0.0, 1.0),
    "normalized_1_1": (-1.0, 1.0),
    "nominalrange_16_235": (16.0, 235.0),
}


def describe_folder(folder: Path) -> Description | None:
    """Read metadata_properties.json, if the folder has Custom Vision's manifest.

    Raises:
        BuildError: the file is damaged, or a recipe cannot say the preprocessing.
    """
    if not ((folder / MANIFEST).is_file() and (folder / PROPERTIES).is_file()):
        return None
    properties = read_json(folder / PROPERTIES)
    described = describe_pixels(properties, _size(properties, "Target"))
    if not described:
        return None
    fields = {**described.recipe, **_geometry(properties), **_normalization(properties)}
    return Description(f"{PROPERTIES} of Custom Vision", fields)


def describe_pixels(said: Mapping[str, Any], size: Size | None) -> Description | None:
    """Read the order and range of pixels from the metadata of an ONNX file.

    Raises:
        BuildError: a recipe cannot say them.
    """
    values = {key.lower(): str(value).lower() for key, value in said.items()}
    if FORMAT not in values and RANGE not in values:
        return None
    for key, known in ((FORMAT, COLOURS), (RANGE, RANGES), (GAMMA, {"srgb"})):
        if key in values and values[key] not in known:
            raise refused("the file's metadata", f"{key} {values[key]} is not supported")
    fields: dict[str, Any] = {
        "mode": "squash",
        "interpolation": "bicubic",  # Pillow's default
        "colour": COLOURS[values.get(FORMAT, "rgb8")],
        "pixel_range": RANGES[values.get(RANGE, "normalized_0_1")],
        "mean": (0.0,),
        "std": (1.0,),
    }
    sizes = {"resize": size, "crop": size} if size else {}
    return Description("the file's metadata `Image.NominalPixelRange`", {**fields, **sizes})


def _geometry(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Resize the shorter side only where a crop is said, too."""
    target, crop = _size(properties, "Target"), _size(properties, "Crop")
    if properties.get(f"{PREPROCESS}ResizeMethod") == "ByShorterSide" and target and crop:
        return {"mode": "shorter", "resize": target, "crop": crop}
    return {}


def _size(properties: Mapping[str, Any], kind: str) -> Size | None:
    height, width = (
        str(properties.get(f"{PREPROCESS}{kind}{side}", "0")) for side in ("Height", "Width")
    )
    return (int(height), int(width)) if height.isdigit() and int(height) and int(width) else None


def _normalization(properties: Mapping[str, Any]) -> dict[str, Any]:
    said = {
        field: properties.get(f"{PREPROCESS}Normalize{field.title()}") for field in ("mean", "std")
    }
    try:
        values = {
            field: tuple(map(float, json.loads(text)))
            for field, text in said.items()
            if text and text != "null"
        }
    except (TypeError, ValueError) as error:
        raise refused(PROPERTIES, f"cannot use its normalisation: {error}") from error
    return {field: value for field, value in values.items() if value}
