"""How a build describes what it made of a classifier."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from scripts.repository import builder, sources, summary
from scripts.repository.manifest import Choice, Entry
from scripts.repository.tuning import Tuning
from tests.descriptions import said
from tests.graphs import FLEXIBLE, classifier

Build = Callable[..., Entry]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Builds a small classifier with fields of a recipe, and returns its entry."""
    file = tmp_path / "birds.onnx"
    onnx.save(classifier(FLEXIBLE), file)

    def run(**fields: object) -> Entry:
        source = sources.from_file(file, "birds", said(**fields))  # type: ignore[arg-type]
        return builder.add(tmp_path / "model_repository", source)

    return run


def test_a_line_names_classes_sizes_and_file(build: Build) -> None:
    line = summary.line("birds", build(resize=40))
    assert line == "birds         10 classes, recipe 40/32, from file birds.onnx"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"precision": "int8"}, ", int8 on onnxruntime"),
        ({"tuning": Tuning(engine="openvino")}, ", fp32 on OpenVINO"),
        ({"tuning": Tuning("gpu", engine="tensorrt")}, ", fp32 on TensorRT"),
        ({"tuning": Tuning(engine="openvino"), "precision": "bf16"}, ", bf16 on OpenVINO"),
        (
            {"choice": Choice("onnxruntime", 0.9)},
            ", fp32 on onnxruntime (OpenVINO is 0.90 times as fast as onnxruntime)",
        ),
        ({"tuning": Tuning("gpu", preprocess="gpu")}, ", preprocessing on the GPU"),
        ({"tuning": None}, ""),
    ],
)
def test_a_line_names_what_runs_the_graphs(
    build: Build, changes: dict[str, Any], text: str
) -> None:
    entry = build()
    line = summary.line("birds", entry)
    assert summary.line("birds", replace(entry, **changes)) == line + text


def test_a_line_names_the_ensemble_of_ten_crops(build: Build) -> None:
    line = summary.line("birds", replace(build(), crops=10))
    assert "recipe 37/32 and with 10 crops as birds_10crop, from file" in line


def test_slower_precisions_are_described() -> None:
    assert summary.without_gain("bf16", {"onnxruntime": 1.2, "openvino": 1.1}) is None
    assert summary.without_gain("fp16", {"onnxruntime": 1.04}) == (  # which is printed as 1.0
        "fp16 is not faster than fp32 on onnxruntime on this CPU; it needs a GPU (--device gpu)"
    )
    assert summary.without_gain("bf16", {"onnxruntime": 0.9, "openvino": 0.8}) == (
        "bf16 is not faster than fp32 on onnxruntime and fp32 on OpenVINO on this CPU; it needs "
        "fast bfloat16 instructions, such as AMX"
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "shorter side to 37, crop 32, bilinear, zoo rounding, fast decoding"),
        ({"resize": (40, 50)}, "covering 40x50, crop 32,"),
        ({"mode": "squash", "resize": (40, 50)}, "squashed to 40x50, crop 32,"),
        ({"mode": "letterbox", "fill": (1, 2, 3)}, "padded to 32 with 1 2 3, crop 32,"),
        ({"mode": "letterbox"}, "padded to 32 with 0 0 0, crop 32,"),
        ({"antialias": False}, "bilinear without antialiasing, zoo rounding"),
        ({"rounding": "torchvision", "decoding": "exact"}, "torchvision rounding, exact decoding"),
    ],
)
def test_the_size_is_described(build: Build, fields: dict[str, object], text: str) -> None:
    assert text in summary.details(build(**fields))[0]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "RGB 0..1, mean 0.485 0.456 0.406, std 0.229 0.224 0.225 [assumed]"),
        ({"colour": "bgr", "mean": (0.5,)}, "BGR 0..1, mean 0.5, std 0.229 0.224 0.225 [the test,"),
        ({"pixel_range": (0, 255), "mean": (0,), "std": (1,)}, "RGB 0..255 [assumed, the test]"),
        ({"pixel_range": (-1, 1)}, "RGB -1..1 [assumed, the test]"),
    ],
)
def test_the_pixels_are_described_with_their_sources(
    build: Build, fields: dict[str, object], text: str
) -> None:
    assert text in summary.details(build(**fields))[1]


def test_labels_scores_and_batches_are_described(build: Build) -> None:
    labels, scores, batches = summary.details(build(labels=tuple("abcdefghij")))[2:]
    assert labels == "labels  the test"
    assert scores.startswith("scores  logits, output ")
    assert batches == "batches of any size; no difference"


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({}, ["mean", "std"]),
        ({"mean": (0.5,)}, ["std"]),
        ({"mean": (0.5,), "std": (0.5,)}, []),
    ],
)
def test_what_nothing_says_is_known(
    build: Build, fields: dict[str, object], missing: list[str]
) -> None:
    assert summary.assumed(build(**fields)) == missing
