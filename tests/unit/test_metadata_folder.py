"""The ONNX file in a folder, and what the files beside it say."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.repository.errors import BuildError
from scripts.repository.metadata import folder

VIT = {"image_processor_type": "ViTImageProcessor"}


def write(file: Path, content: object = "") -> Path:
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return file


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["model.onnx"], "model.onnx"),
        (["onnx/model.onnx", "onnx/model_fp16.onnx"], "onnx/model.onnx"),
        (["model.onnx", "model_quantized.onnx", "onnx/model.onnx"], "model.onnx"),
        (["birds.onnx", "birds.onnx.data"], "birds.onnx"),
        (["onnx/model_quantized.onnx"], "onnx/model_quantized.onnx"),
        (["birds.onnx", "other/model.onnx"], "birds.onnx"),
    ],
)
def test_onnx_file_of_a_folder_is_model_onnx_or_the_only_one(
    tmp_path: Path, files: list[str], chosen: str
) -> None:
    for name in files:
        write(tmp_path / name)
    assert folder.find_onnx(tmp_path) == tmp_path / chosen
    assert folder.find_onnx(tmp_path / chosen) == tmp_path / chosen


def test_folder_without_one_onnx_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="has no ONNX file; export one with: optimum-cli"):
        folder.find_onnx(tmp_path)
    for name in ("a.onnx", "onnx/b.onnx"):
        write(tmp_path / name)
    with pytest.raises(BuildError, match=r"has several ONNX files: a\.onnx, onnx/b\.onnx; give"):
        folder.find_onnx(tmp_path)
    with pytest.raises(BuildError, match="there is no file or folder"):
        folder.find_onnx(tmp_path / "missing")


def origins(path: Path, file: str = "model.onnx", **options: Any) -> list[str]:
    return [each.origin for each in folder.describe(path, path / file, **options)]


@pytest.mark.parametrize("subfolder", ["", "onnx", "int8"])
def test_folder_of_optimum_says_preprocessing_and_labels(tmp_path: Path, subfolder: str) -> None:
    write(tmp_path / "preprocessor_config.json", VIT)
    write(tmp_path / "config.json", {"model_type": "vit", "id2label": {"0": "cat", "1": "dog"}})
    recipe, model = folder.describe(tmp_path / subfolder, tmp_path / subfolder / "model.onnx")
    assert (recipe.origin, recipe.recipe["crop"]) == ("preprocessor_config.json", (224, 224))
    assert (model.origin, model.labels) == ("config.json", ("cat", "dog"))


def test_folder_of_timm_says_both_in_one_file(tmp_path: Path) -> None:
    config = {"pretrained_cfg": {"input_size": [3, 240, 240]}, "label_names": ["cat", "dog"]}
    write(tmp_path / "config.json", config)
    (found,) = folder.describe(tmp_path, tmp_path / "model.onnx", size=(240, 240))
    assert found.origin == "config.json of timm"
    assert found.recipe["crop"] == (240, 240)
    assert found.labels == ("cat", "dog")


def test_preprocessing_that_is_not_wanted_is_not_refused(tmp_path: Path) -> None:
    write(tmp_path / "preprocessor_config.json", {"image_processor_type": "MyProcessor"})
    write(tmp_path / "config.json", {"pretrained_cfg": {"interpolation": "random"}})
    with pytest.raises(BuildError, match="MyProcessor"):
        origins(tmp_path)
    assert origins(tmp_path, preprocessing=False) == ["config.json of timm"]


def test_labels_that_are_not_wanted_are_not_refused(tmp_path: Path) -> None:
    kind = {"problem_type": "multi_label_classification"}
    write(tmp_path / "config.json", {"id2label": {"1": "cat", "2": "dog"}, **kind})
    write(tmp_path / "labels.txt", "cat\n\ndog")
    with pytest.raises(BuildError, match=r"config\.json has no label for class 0"):
        origins(tmp_path)
    (found,) = folder.describe(tmp_path, tmp_path / "model.onnx", labels=False)
    assert (found.labels, found.scores) == (None, "sigmoid")


@pytest.mark.parametrize("name", ["labels.txt", "classes.txt", "birds.txt", "birds.names"])
def test_labels_beside_the_file_are_read(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, "cat\ndog\n")
    write(tmp_path / "README.txt", "nothing")
    (found,) = folder.describe(tmp_path, tmp_path / "birds.onnx")
    assert (found.origin, found.labels) == (name, ("cat", "dog"))


def test_only_one_file_of_labels_is_read(tmp_path: Path) -> None:
    for name in ("labels.txt", "labels.json", "model.txt"):
        write(tmp_path / name, '["a", "b"]')
    assert origins(tmp_path) == ["model.txt"]


CUSTOM_VISION = {
    "CustomVision.Preprocess.CropHeight": "0",
    "CustomVision.Preprocess.CropMethod": "FullImageShorterSide",
    "CustomVision.Preprocess.CropWidth": "0",
    "CustomVision.Preprocess.NormalizeMean": "[0.0, 0.0, 0.0]",
    "CustomVision.Preprocess.NormalizeStd": "[1.0, 1.0, 1.0]",
    "CustomVision.Preprocess.ResizeMethod": "ByShorterSideAlign32",
    "CustomVision.Preprocess.TargetHeight": "224",
    "CustomVision.Preprocess.TargetWidth": "224",
    "Image.BitmapPixelFormat": "Bgr8",
    "Image.ColorSpaceGamma": "SRGB",
    "Image.NominalPixelRange": "NominalRange_0_255",
}


def custom_vision(path: Path, **changes: str) -> None:
    write(path / "cvexport.manifest", {"Platform": "ONNX", "LabelFileName": "labels.txt"})
    write(path / "labels.txt", "cat\r\ndog")
    changed = {f"CustomVision.Preprocess.{name}": value for name, value in changes.items()}
    write(path / "metadata_properties.json", CUSTOM_VISION | changed)


def test_folder_of_custom_vision_says_preprocessing_and_labels(tmp_path: Path) -> None:
    custom_vision(tmp_path)
    found, labels = folder.describe(tmp_path, tmp_path / "model.onnx")
    assert labels.labels == ("cat", "dog")
    assert found.recipe == {
        "mode": "squash",
        "resize": (224, 224),
        "crop": (224, 224),
        "interpolation": "bicubic",
        "colour": "bgr",
        "pixel_range": (0.0, 255.0),
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
    }
    assert found.origin == "metadata_properties.json of Custom Vision"


def test_custom_vision_resizes_the_shorter_side_if_it_crops(tmp_path: Path) -> None:
    custom_vision(
        tmp_path,
        ResizeMethod="ByShorterSide",
        TargetHeight="256",
        TargetWidth="256",
        CropHeight="224",
        CropWidth="224",
    )
    found, _ = folder.describe(tmp_path, tmp_path / "model.onnx")
    fields = ("mode", "resize", "crop")
    assert [found.recipe[name] for name in fields] == ["shorter", (256, 256), (224, 224)]


def test_normalisation_of_custom_vision_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    custom_vision(tmp_path, NormalizeMean="[0.5, ")
    with pytest.raises(BuildError, match="cannot use its normalisation"):
        origins(tmp_path)


def test_manifest_of_custom_vision_without_pixels_says_nothing(tmp_path: Path) -> None:
    write(tmp_path / "cvexport.manifest", {})
    assert origins(tmp_path) == []
    write(tmp_path / "metadata_properties.json", {})
    assert origins(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("preprocessor_config.json", '{"image_processor": '),
        ("labels.json", "{"),
    ],
)
def test_damaged_files_are_refused_with_one_line(tmp_path: Path, name: str, content: str) -> None:
    write(tmp_path / name, content)
    with pytest.raises(BuildError, match=name) as caught:
        origins(tmp_path)
    assert "\n" not in str(caught.value)
