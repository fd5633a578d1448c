"""Comparing what was built with the file itself, and with libraries that are installed."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from client import SAMPLE
from scripts.repository import builder, libraries, sources
from scripts.repository.check import FILE, SERVED, Check, Comparison
from scripts.repository.description import Description
from scripts.repository.errors import BuildError
from scripts.repository.graphs.engines import has_bfloat16
from scripts.repository.graphs.signature import Signature
from scripts.repository.graphs.tensors import NUMPY_TYPES
from scripts.repository.libraries import Library
from scripts.repository.steps.preprocess.imaging import decode
from scripts.repository.tuning import Tuning
from tests.descriptions import said
from tests.graphs import CLASSES, FLEXIBLE, SOFTMAXED, classifier, convolved

NHWC = "nchw = Transpose<perm = [0, 3, 1, 2]>(image)" + FLEXIBLE.replace("(image)", "(nchw)")
INTEGERS = "cast = Cast<to = 1>(image) image2 = Mul(cast, scale)" + FLEXIBLE.replace(
    "(image)", "(image2)"
)
SIGMOID = FLEXIBLE.replace("scores =", "logits =") + "scores = Sigmoid(logits)"
SCALE = {"scale": np.array(1 / 255, np.float32)}
ONE_SCORE = {"column": np.ones((3, 1), np.float32)}

Compare = Callable[..., Comparison]


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """Builds a graph, and compares its predictions for the sample photograph."""

    def run(model: onnx.ModelProto, *descriptions: Description) -> Comparison:
        file = tmp_path / "birds.onnx"
        onnx.save(model, file)
        source = sources.from_file(file, "birds", *descriptions)
        entry = builder.add(tmp_path / "model_repository", source)
        return Check(source, entry, tmp_path / "model_repository").compare(SAMPLE)

    return run


def assert_same(comparison: Comparison) -> None:
    served, file = comparison.answers[:2]
    assert (served.way, file.way) == (SERVED, FILE)
    assert served.classes == file.classes
    np.testing.assert_allclose(served.probabilities, file.probabilities, atol=1e-3)
    assert comparison.difference < 1e-3


@pytest.mark.parametrize(
    ("model", "descriptions"),
    [
        (classifier(FLEXIBLE), []),
        (classifier(FLEXIBLE), [said(scores="sigmoid")]),
        (classifier(SOFTMAXED), []),
        (classifier(SIGMOID), []),
        (classifier(NHWC, image="float[N,32,32,3]"), []),
        (classifier(INTEGERS, image="uint8[N,3,32,32]", initializers=SCALE), []),
        (classifier(FLEXIBLE), [said(mode="letterbox", fill=(9, 9, 9), colour="bgr")]),
        (classifier(FLEXIBLE), [said(mode="squash", resize=(40, 50), decoding="exact")]),
        (
            classifier(FLEXIBLE.replace("weight", "column"), initializers=ONE_SCORE),
            [said(scores="sigmoid", labels=("cat", "dog"))],
        ),
    ],
    ids=["logits", "told", "softmax", "sigmoid", "nhwc", "uint8", "letterbox", "squash", "one"],
)
def test_what_is_served_is_what_the_file_gives(
    compare: Compare, model: onnx.ModelProto, descriptions: list[Description]
) -> None:
    assert_same(compare(model, *descriptions))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_openvino_serves_is_compared(tmp_path: Path, precision: str) -> None:
    file = tmp_path / "birds.onnx"
    onnx.save(convolved(), file)
    source = sources.from_file(file, "birds", said(decoding="exact"))
    repository, tuning = tmp_path / "model_repository", Tuning(engine="openvino")
    entry = builder.add(repository, source, tuning=tuning, precision=precision)
    difference = Check(source, entry, repository).compare(SAMPLE).difference
    is_rounded = precision == "bf16" and has_bfloat16()
    assert (1e-4 < difference < 0.05) if is_rounded else 0 < difference < 1e-5


def test_scores_are_compared_as_the_kind_that_was_told(compare: Compare) -> None:
    independent = compare(classifier(SIGMOID)).answers[0].probabilities
    told = compare(classifier(SIGMOID), said(scores="logits")).answers[0].probabilities
    assert sum(independent) > 1 > sum(told)


def test_a_row_has_a_probability_and_a_label(compare: Compare) -> None:
    answer = compare(classifier(FLEXIBLE), said(labels=tuple("abcdefghij"))).answers[0]
    assert answer.row(0) == f"{answer.probabilities[0]:.4f} {'abcdefghij'[answer.classes[0]]}"


def test_a_file_of_another_fixed_size_is_run_at_the_crop(compare: Compare) -> None:
    assert_same(compare(classifier(FLEXIBLE, image="float[1,3,48,48]"), said(crop=32)))
    assert_same(compare(classifier(NHWC, image="float[1,48,48,3]"), said(crop=(32, 40))))


def test_a_file_that_is_not_an_image_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "birds.onnx"
    onnx.save(classifier(FLEXIBLE), file)
    source = sources.from_file(file, "birds")
    entry = builder.add(tmp_path / "model_repository", source)
    with pytest.raises(BuildError, match=r"--check: .*birds\.onnx: not an image") as caught:
        Check(source, entry, tmp_path / "model_repository").compare(file)
    assert "\n" not in str(caught.value)


def with_library(monkeypatch: pytest.MonkeyPatch, preprocess: Callable[[Image.Image], Any]) -> None:
    found = [Library("a library", preprocess)]
    monkeypatch.setattr(libraries, "installed", lambda _: found)


def test_a_library_s_own_preprocessing_is_compared(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_library(monkeypatch, lambda _: np.zeros((3, 32, 32), np.float32))
    answers = compare(classifier(FLEXIBLE)).answers
    assert [answer.way for answer in answers] == [SERVED, FILE, "a library"]
    np.testing.assert_allclose(answers[2].probabilities, 1 / CLASSES, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "image"), [((3, 40, 40), "float[1,3,32,32]"), ((3, 32, 32), "uint8[N,3,32,32]")]
)
def test_a_library_that_the_graph_does_not_fit_is_left_out_with_a_warning(
    compare: Compare,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    shape: tuple[int, ...],
    image: str,
) -> None:
    with_library(monkeypatch, lambda _: np.full(shape, 0.5, np.float32))
    body = INTEGERS if "uint8" in image else FLEXIBLE
    comparison = compare(classifier(body, image=image, initializers=SCALE))
    assert [answer.way for answer in comparison.answers] == [SERVED, FILE]
    assert "a library cannot be compared with: " in caplog.text


@pytest.mark.parametrize(
    ("layout", "input_type", "shape"),
    [
        ("NCHW", "FP32", (1, 3, 4, 5)),
        ("NHWC", "FP16", (1, 4, 5, 3)),
        ("NHWC", "UINT8", (1, 4, 5, 3)),
    ],
)
def test_the_tensor_of_a_library_has_the_layout_and_type_of_the_graph(
    layout: str, input_type: str, shape: tuple[int, ...]
) -> None:
    signature = Signature("image", "scores", 1, 4, 5, layout=layout, input_type=input_type)
    library = Library("a library", lambda _: np.ones((3, 4, 5), np.float32))
    tensor = library.tensor(decode(SAMPLE.read_bytes()), signature)
    assert tensor.shape == shape
    assert tensor.dtype == NUMPY_TYPES[input_type]


def test_a_library_that_cannot_read_the_files_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "birds.onnx"
    onnx.save(classifier(FLEXIBLE), file)
    source = sources.from_file(file, "birds")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {}}))
    package = tmp_path / "packages" / "timm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "data.py").write_text("raise RuntimeError('broken\\ninstallation')")
    monkeypatch.syspath_prepend(str(package.parent))
    with caplog.at_level(logging.WARNING):
        found = libraries.installed(source)
    assert "timm" not in {library.name for library in found}
    assert caplog.messages == ["timm cannot be compared with: broken"]


def test_files_in_a_folder_around_that_of_the_file_name_no_library(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "models" / "birds.onnx"
    file.parent.mkdir()
    onnx.save(classifier(FLEXIBLE), file)
    (tmp_path / "config.json").write_text("[")
    source = sources.from_file(file, "birds")
    assert libraries.installed(source) == []
    assert not caplog.messages
