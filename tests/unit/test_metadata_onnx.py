"""What exporters write into an ONNX file's own metadata."""

import logging
from typing import Any

import onnx
import pytest

from scripts.repository.description import Description
from scripts.repository.errors import BuildError
from scripts.repository.metadata import onnx_properties
from scripts.repository.steps.preprocess.recipe import Recipe

CAT_DOG = ("cat", "hot dog")


def describe(properties: dict[str, str], **options: Any) -> list[Description]:
    model = onnx.ModelProto()
    onnx.helper.set_model_props(model, properties)
    return onnx_properties.describe(model, **options)


def only(properties: dict[str, str], **options: Any) -> Description:
    (found,) = describe(properties, **options)
    return found


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("names", "{0: 'cat', 1: 'hot dog'}"),
        ("names", "['cat', 'hot dog']"),
        ("id2label", '{"0": "cat", "1": "hot dog"}'),
        ("labels", '["cat", "hot dog"]'),
        ("labels", "cat, hot dog"),
        ("classes", "('cat', 'hot dog')"),
        ("class_names", "cat\nhot dog\n"),
        ("character", "cat\nhot dog"),
        ("model_info labels", "cat hot_dog"),
    ],
)
def test_labels_are_read_in_the_form_of_each_exporter(key: str, value: str) -> None:
    found = only({key: value, "stride": "32"})
    assert (found.labels, found.origin) == (CAT_DOG, f"the file's metadata `{key}`")
    assert not found.recipe


def test_labels_of_a_zip_map_are_read() -> None:
    node = onnx.helper.make_node(
        "ZipMap", ["p"], ["z"], domain="ai.onnx.ml", classlabels_strings=list(CAT_DOG)
    )
    model = onnx.ModelProto(graph=onnx.helper.make_graph([node], "g", [], []))
    (found,) = onnx_properties.describe(model)
    assert (found.labels, found.origin) == (CAT_DOG, "the file's ZipMap node")


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"names": ""},
        {"classes": "1000"},
        {"labels": "a file of labels"},
        {"names": "[" * 100_000},
        {"mean": "mean", "std": "[]"},
        {"task": "detect", "imgsz": "[640, 640]"},
    ],
)
def test_metadata_without_labels_says_nothing(properties: dict[str, str]) -> None:
    assert describe(properties) == []


def test_damaged_labels_are_said_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert describe({"names": "{1: 'cat'}"}) == []
    assert "the file's metadata `names` has no label for class 0" in caplog.text


ULTRALYTICS = {
    "description": "Ultralytics YOLO11n-cls model trained on imagenet",
    "version": "8.3.40",
    "stride": "1",
    "task": "classify",
    "batch": "1",
    "imgsz": "[224, 224]",
    "names": "{0: 'cat', 1: 'hot dog'}",
    "args": "{'batch': 1, 'half': False}",
}


@pytest.mark.parametrize(("version", "antialias"), [("8.3.40", True), ("8.0.196", False)])
@pytest.mark.parametrize("size", ["[224, 224]", "224"])
def test_ultralytics_classifiers_say_their_preprocessing(
    version: str, antialias: bool, size: str
) -> None:
    labels, found = describe({**ULTRALYTICS, "version": version, "imgsz": size})
    assert labels.labels == CAT_DOG
    assert Recipe(**found.recipe) == Recipe(
        (224, 224), (224, 224), rounding="torchvision", antialias=antialias, mean=(0,), std=(1,)
    )
    assert "Ultralytics" in found.origin
    assert describe(ULTRALYTICS, preprocessing=False) == [labels]


def test_impossible_size_is_refused() -> None:
    with pytest.raises(BuildError, match="imgsz` of Ultralytics: cannot use it: a crop of 0x8"):
        describe({**ULTRALYTICS, "imgsz": "[0, 8]"})


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        (("Bgr8", "NominalRange_0_255"), {"colour": "bgr", "pixel_range": (0, 255)}),
        (("RGB8", "Normalized_0_1"), {"colour": "rgb", "pixel_range": (0, 1)}),
        (("gray8", "NORMALIZED_1_1"), {"colour": "grey", "pixel_range": (-1, 1)}),
    ],
)
def test_order_and_range_of_pixels_are_those_of_the_metadata(
    values: tuple[str, str], fields: dict[str, Any]
) -> None:
    said = {
        "Image.BitmapPixelFormat": values[0],
        "Image.NominalPixelRange": values[1],
        "Image.ColorSpaceGamma": "SRGB",
    }
    found = only(said, size=(300, 200))
    assert Recipe(**found.recipe) == Recipe(
        (300, 200),
        (300, 200),
        mode="squash",
        interpolation="bicubic",
        mean=(0,),
        std=(1,),
        **fields,
    )
    assert "crop" not in only(said).recipe


def test_pixels_that_cannot_be_given_are_refused() -> None:
    for key, value in (
        ("Image.BitmapPixelFormat", "Rgba8"),
        ("Image.ColorSpaceGamma", "Linear"),
    ):
        said = {"Image.NominalPixelRange": "Normalized_0_1", key: value}
        with pytest.raises(BuildError, match=f"{key.lower()} {value.lower()} is not supported"):
            describe(said)
        assert describe(said, preprocessing=False) == []


def test_openvino_training_extensions_give_values_of_0_to_255() -> None:
    said = {
        "model_info labels": "cat hot_dog",
        "model_info mean_values": "123.675 116.28 103.53",
        "model_info scale_values": "58.395 57.12 57.375",
        "model_info resize_type": "standard",
    }
    labels, found = describe(said, size=(224, 224))
    assert labels.labels == CAT_DOG
    assert found.recipe == {
        "pixel_range": (0.0, 255.0),
        "mean": (123.675, 116.28, 103.53),
        "std": (58.395, 57.12, 57.375),
        "mode": "squash",
        "resize": (224, 224),
        "crop": (224, 224),
    }


def test_mean_and_std_are_read_on_either_scale(caplog: pytest.LogCaptureFixture) -> None:
    found = only({"mean": "[0.5, 0.5, 0.5]", "std": "0.2 0.2 0.2"})
    assert found.recipe == {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    assert only({"mean": "127.5, 127.5, 127.5"}).recipe == {"mean": (0.5, 0.5, 0.5)}
    assert "is read as that of pixels in 0..255" in caplog.text
