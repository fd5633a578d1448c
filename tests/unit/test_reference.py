"""The reference for agreement, compared with the tests' own, and what it refuses."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from PIL import Image

from client import SAMPLE
from scripts.evaluation.errors import EvaluationError
from scripts.evaluation.reference import open_reference
from scripts.repository import builder, calibration, manifest, sources
from scripts.repository.catalog import CATALOG
from scripts.repository.description import Description
from scripts.repository.errors import BuildError
from scripts.repository.manifest import Entry
from scripts.repository.original_file import Rows, pixels
from scripts.repository.steps.preprocess import sharing
from scripts.repository.steps.preprocess.imaging import ImageError
from scripts.repository.steps.preprocess.recipe import Recipe, square
from scripts.repository.tuning import Tuning
from tests import images, reference
from tests.conftest import ROOT
from tests.descriptions import said
from tests.graphs import FLEXIBLE, classifier, convolved

Levels = npt.NDArray[np.int64]
PHOTO = SAMPLE.read_bytes()
NHWC = "nchw = Transpose<perm = [0, 3, 1, 2]>(image)" + FLEXIBLE.replace("(image)", "(nchw)")


def build(
    folder: Path, model: onnx.ModelProto, *descriptions: Description, layout: str | None = None
) -> tuple[Path, Path]:
    """Build `birds`, and return the repository and the file."""
    file = folder / "birds.onnx"
    onnx.save(model, file)
    source = sources.from_file(file, "birds", *descriptions, layout=layout)
    builder.add(folder / "model_repository", source)
    return folder / "model_repository", file


def assert_independent(file: Path, recipe: Recipe, found: Rows, data: bytes = PHOTO) -> None:
    """Compare probabilities with those of tests/reference.py, which uses nothing of the project."""
    levels = reference.picture(reference.opened(data), recipe)
    session = onnxruntime.InferenceSession(file)
    scores = reference.logits(session, [reference.normalized(levels)])[0]
    best = reference.best(scores, len(scores))
    np.testing.assert_allclose(found[best.classes], best.probabilities, rtol=1e-4, atol=1e-9)
    assert np.argsort(-found, kind="stable").tolist() == best.classes


@pytest.mark.parametrize("decoding", ["exact", "fast"])
@pytest.mark.parametrize("mode", ["shorter", "squash", "letterbox"])
def test_probabilities_are_those_of_an_independent_computation(
    tmp_path: Path, mode: str, decoding: str
) -> None:
    recipe = square(32, 32, mode=mode)
    described = said(resize=32, mode=mode, decoding=decoding)
    repository, file = build(tmp_path, convolved(), described)
    found = open_reference("birds", repository, file).probabilities(PHOTO)
    assert found.dtype == np.float64
    assert_independent(file, recipe, found)


def test_a_quantised_classifier_has_the_reference_of_its_file(tmp_path: Path) -> None:
    repository, file = build(tmp_path, convolved())
    expected = open_reference("birds", repository, file).probabilities(PHOTO)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "chelsea.jpg").write_bytes(PHOTO)
    builder.add(
        repository,
        sources.from_file(file, "birds"),
        tuning=Tuning(engine="openvino"),
        precision="int8",
        images=calibration.read(tmp_path / "photos"),
    )
    assert manifest.read(repository)["birds"].precision == "int8"
    found = open_reference("birds", repository, file).probabilities(PHOTO)
    np.testing.assert_array_equal(found, expected)


def test_a_layout_that_only_the_build_was_told_is_known(tmp_path: Path) -> None:
    told = classifier(NHWC, image="float[N,height,width,channels]")
    repository, file = build(tmp_path, told, said(crop=32), layout="nhwc")
    found = open_reference("birds", repository, file).probabilities(PHOTO)
    onnx.save(classifier(FLEXIBLE), file)
    assert_independent(file, Recipe((37, 37), (32, 32)), found)


def test_a_file_of_a_fixed_size_is_run_at_a_larger_crop(tmp_path: Path) -> None:
    repository, file = build(tmp_path, convolved(), said(resize=64, crop=48))
    found = open_reference("birds", repository, file.parent).probabilities(PHOTO)
    onnx.save(convolved(image="float[1,3,48,48]"), file)
    assert_independent(file, square(64, 48), found)


def ten_crops(data: bytes, resize: int, crop: int) -> list[Levels]:
    """Cut the corners and the centre of a picture and of its mirror image with NumPy."""
    image = reference.opened(data).convert("RGB")
    ratio = resize / min(image.size)
    size = (round(ratio * image.width), round(ratio * image.height))
    whole = np.asarray(image.resize(size, Image.Resampling.BILINEAR)).astype(np.int64)
    below, right = whole.shape[0] - crop, whole.shape[1] - crop
    centre = whole.shape[0] // 2 - crop // 2, whole.shape[1] // 2 - crop // 2
    starts = [(0, 0), (0, right), (below, 0), (below, right), centre]
    both = (whole, whole[:, ::-1])
    return [each[y : y + crop, x : x + crop] for each in both for y, x in starts]


def test_ten_crops_are_those_of_an_independent_computation(tmp_path: Path) -> None:
    file, repository = tmp_path / "birds.onnx", tmp_path / "model_repository"
    onnx.save(convolved(), file)
    builder.add(repository, sources.from_file(file, "birds", said(resize=48)), crops=10)
    opened = open_reference("birds_10crop", repository, file)
    session = onnxruntime.InferenceSession(file)
    for data in images.mixed_sizes():
        crops = [reference.normalized(crop) for crop in ten_crops(data, 48, 32)]
        scores = reference.logits(session, crops).astype(np.float64)
        exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
        expected = (exponents / exponents.sum(axis=1, keepdims=True)).mean(axis=0)
        np.testing.assert_allclose(opened.probabilities(data), expected, rtol=1e-4, atol=1e-9)


def test_synthetic_weights_are_made_again(tmp_path: Path) -> None:
    model = CATALOG["mobilenetv2"]
    graph = sources.from_seed(model).load()
    entry = zoo_entry("synthetic", graph.sha256)
    manifest.write(tmp_path, {"mobilenetv2": entry}, {})
    found = open_reference("mobilenetv2", tmp_path).probabilities(PHOTO)
    onnx.save(graph.model, tmp_path / "original.onnx")
    assert_independent(tmp_path / "original.onnx", model.recipe, found)
    manifest.write(tmp_path, {"mobilenetv2": replace(entry, source_sha256="0" * 64)}, {})
    with pytest.raises(
        EvaluationError, match=r"not what mobilenetv2 was .*; build mobilenetv2 again"
    ):
        open_reference("mobilenetv2", tmp_path)


def test_several_threads_get_the_answers_of_one(tmp_path: Path) -> None:
    repository, file = build(tmp_path, convolved())
    opened = open_reference("birds", repository, file)
    pictures = images.mixed_sizes() * 8
    expected = [opened.probabilities(picture) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        np.testing.assert_array_equal(list(pool.map(opened.probabilities, pictures)), expected)


def test_what_is_not_an_image_is_refused_as_the_step_does(tmp_path: Path) -> None:
    opened = open_reference("birds", *build(tmp_path, classifier(FLEXIBLE)))
    with pytest.raises(ImageError, match="not an image"):
        opened.probabilities(b"no image")


LOCKED_SECONDS = 0.5
LOCKING = """
import fcntl, os, sys, time
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
"""


def test_it_waits_while_another_process_decodes_large_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    large = images.encode(images.photo(4000, 3000), "JPEG")
    monkeypatch.setattr(sharing, "MAX_WAIT_SECONDS", 0.05)
    sharing.lock_file.cache_clear()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert sharing.lock_file() is not None
    (file,) = tmp_path.iterdir()
    command = [sys.executable, "-c", LOCKING, str(file), str(LOCKED_SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        started = time.monotonic()
        assert pixels(large, square(256, 224, decoding="exact")).shape == (1, 224, 224, 3)
        assert time.monotonic() - started > LOCKED_SECONDS / 2
    sharing.lock_file.cache_clear()


def zoo_entry(kind: str, sha256: str) -> Entry:
    """Make the entry of MobileNetV2, with only what the reference needs."""
    return Entry(
        source=f"{kind} mobilenetv2-7.onnx",
        source_sha256=sha256,
        prepared_sha256="",
        opset=13,
        ir_version=8,
        classes=1000,
        scores="logits",
        recipe=vars(CATALOG["mobilenetv2"].recipe),
        labels="",
        parts={},
    )


def test_a_classifier_that_the_repository_does_not_have_is_named(tmp_path: Path) -> None:
    repository, file = build(tmp_path, classifier(FLEXIBLE))
    with pytest.raises(EvaluationError, match="model_repository has birds, not finches; give"):
        open_reference("finches", repository, file)
    with pytest.raises(EvaluationError, match="has no classifier, not finches; give"):
        open_reference("finches", tmp_path / "new")


def test_an_own_classifier_needs_its_file(tmp_path: Path) -> None:
    repository, file = build(tmp_path, classifier(FLEXIBLE))
    with pytest.raises(EvaluationError, match=r"built from the file birds\.onnx; give it"):
        open_reference("birds", repository)
    file.unlink()
    with pytest.raises(BuildError, match=r"no file or folder .*birds\.onnx"):
        open_reference("birds", repository, file)


def test_another_file_is_refused(tmp_path: Path) -> None:
    repository, file = build(tmp_path, classifier(FLEXIBLE))
    onnx.save(convolved(), file)
    with pytest.raises(
        EvaluationError, match=r"birds\.onnx is not what birds was built from"
    ) as caught:
        open_reference("birds", repository, file)
    assert "\n" not in str(caught.value)


def test_the_zoo_s_file_is_looked_for_in_a_folder(tmp_path: Path) -> None:
    manifest.write(tmp_path, {"other_name": zoo_entry("zoo", "")}, {})
    with pytest.raises(BuildError, match=r"files/mobilenetv2-7\.onnx not found"):
        open_reference("other_name", tmp_path, weights=str(tmp_path / "files"))
