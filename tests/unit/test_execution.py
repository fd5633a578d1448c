"""Engines and precisions while a classifier is built: what is checked, chosen and compared."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from scripts.repository import builder, calibration, execution, manifest, onnx_file, sources
from scripts.repository.errors import BuildError
from scripts.repository.execution import Request, Watch
from scripts.repository.graphs import speed
from scripts.repository.graphs.engines import has_bfloat16
from scripts.repository.manifest import Choice, Entry
from scripts.repository.tuning import Tuning
from tests.files import contents
from tests.graphs import CLASSES, FLEXIBLE, classifier, convolved, half, imagenet, shape
from tests.images import fill

OPENVINO = Tuning(engine="openvino")
LP = FLEXIBLE.replace("GlobalAveragePool", "GlobalLpPool")  # OpenVINO cannot load it
# It holds its batch of one, so it is run in a loop.
STRIDED = FLEXIBLE.replace(
    "features = Flatten(pooled)",
    "line = Reshape(pooled, flat) picked = Gather(line, three) features = Reshape(picked, shape)",
)
FIXED = {"flat": np.array([-1]), "three": np.arange(3), **shape(1, 3)}
Build = Callable[..., Entry]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Builds a graph into a repository, and returns its entry."""

    def run(
        model: ModelProto | None = None,
        tuning: Tuning = OPENVINO,
        watch: Watch | None = None,
        **options: Any,
    ) -> Entry:
        file = tmp_path / "birds.onnx"
        onnx.save(model or convolved(), file)
        source = sources.from_file(file, "birds")
        with builder.session(tmp_path / "model_repository", {"birds"}) as session:
            return session.add(source, Request(tuning, **options), watch)

    return run


def graphs(folder: Path) -> dict[str, bytes]:
    files = contents(folder / "model_repository")
    return {name: data for name, data in files.items() if name.endswith(".onnx")}


@pytest.mark.parametrize(
    ("model", "batches"),
    [
        (convolved(), "variable"),
        (classifier(FLEXIBLE, image="float[N,3,H,W]"), "variable"),
        (half(), "variable"),
        (classifier(STRIDED, initializers=FIXED), "loop"),
    ],
    ids=["fp32", "any size", "fp16", "loop"],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_openvino_serves_the_same_graphs_as_onnxruntime(
    build: Build, tmp_path: Path, model: ModelProto, batches: str, precision: str
) -> None:
    build(model, Tuning())
    before = graphs(tmp_path)
    entry = build(model, precision=precision)
    assert graphs(tmp_path) == before
    assert (entry.precision, entry.tuning, entry.batches) == (precision, OPENVINO, batches)


def test_a_graph_with_its_weights_in_another_file_is_checked_and_compared(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 4000)
    entry = build(imagenet(), precision="bf16")
    assert (entry.comparison is not None) == has_bfloat16()
    assert (tmp_path / "model_repository" / "birds_pixels" / "1" / "model.onnx.data").is_file()


def test_builds_for_openvino_are_reproducible(build: Build, tmp_path: Path) -> None:
    build(precision="bf16")
    before = contents(tmp_path / "model_repository")
    build(precision="bf16")
    assert contents(tmp_path / "model_repository") == before


@pytest.mark.parametrize(
    ("precision", "advice"),
    [
        ("fp32", "build it with --engine onnxruntime"),
        ("bf16", "build it with --engine onnxruntime --precision fp32"),
    ],
)
def test_a_graph_that_openvino_cannot_load_is_refused(
    build: Build, precision: str, advice: str
) -> None:
    with pytest.raises(BuildError, match=f"birds: OpenVINO cannot load .*; {advice}$") as caught:
        build(classifier(LP), precision=precision)
    assert "\n" not in str(caught.value)


def test_a_tensor_that_triton_s_openvino_backend_cannot_serve_is_refused(build: Build) -> None:
    body = "real = Cast<to = 1>(image)" + FLEXIBLE.replace("(image)", "(real)")
    double = classifier(body, image="double[N,3,32,32]", scores=f"float[N,{CLASSES}]")
    reason = "birds: Triton's openvino backend cannot serve image, which is FP64; build it with"
    with pytest.raises(BuildError, match=reason):
        build(double)


@pytest.mark.parametrize("options", [{"tuning": Tuning()}, {"auto": True}])
def test_only_openvino_computes_in_bfloat16(build: Build, options: dict[str, Any]) -> None:
    with pytest.raises(BuildError, match="only OpenVINO computes in bfloat16; give --engine open"):
        build(precision="bf16", **options)


def test_int8_without_images_is_refused(build: Build) -> None:
    with pytest.raises(BuildError, match="INT8 needs images that calibrate it"):
        build(precision="int8")


@pytest.mark.parametrize(
    ("ratio", "engine"), [(0.8, "onnxruntime"), (1.04, "onnxruntime"), (1.376, "openvino")]
)
def test_auto_chooses_openvino_if_it_is_clearly_faster(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ratio: float, engine: str
) -> None:
    monkeypatch.setattr(execution, "speeds", lambda *_: (1.0, ratio))
    entry = build(auto=True, tuning=Tuning())
    assert entry.choice == Choice(engine, round(ratio, 2))
    assert entry.tuning == Tuning(engine=engine)
    assert manifest.read(tmp_path / "model_repository")["birds"].choice == entry.choice
    config = (tmp_path / "model_repository" / "birds_pixels" / "config.pbtxt").read_text()
    assert f'backend: "{engine}"' in config


@pytest.mark.parametrize(
    ("tuning", "instances"),
    [(Tuning(cores=2), 2), (Tuning(cores=1), 1), (Tuning(goal="latency", cores=2), 1)],
)
def test_auto_measures_as_many_instances_as_the_server_has(
    build: Build, monkeypatch: pytest.MonkeyPatch, tuning: Tuning, instances: int
) -> None:
    measured = []

    def speeds(*arguments: Any) -> tuple[float, ...]:
        measured.append([len(variant) for variant in arguments[0]])
        return speed.speeds(*arguments)

    monkeypatch.setattr(execution, "speeds", speeds)
    choice = build(auto=True, tuning=tuning).choice
    assert measured == [[instances, instances]]
    assert choice
    assert choice.ratio > 0


def test_auto_takes_onnxruntime_for_a_graph_that_openvino_cannot_load(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    entry = build(classifier(LP), auto=True)
    assert (entry.tuning, entry.choice) == (Tuning(), None)
    (warning,) = caplog.messages
    assert warning.startswith("birds: OpenVINO cannot load the graph: ")
    assert warning.endswith("; onnxruntime is chosen")


def test_a_choice_is_current_until_something_changes(build: Build, tmp_path: Path) -> None:
    entry = build(auto=True, tuning=Tuning())
    source = sources.from_file(tmp_path / "birds.onnx", "birds")
    with builder.session(tmp_path / "model_repository") as session:
        current = session.find_current(source, Request(Tuning(), auto=True))
        assert current
        assert current.choice == entry.choice
        for request in (Request(Tuning()), Request(OPENVINO), Request(Tuning("gpu"), auto=True)):
            assert session.find_current(source, request) is None


@pytest.mark.parametrize("pictures", [0, 3, 100])
def test_bf16_is_compared_with_fp32_where_the_cpu_has_it(
    build: Build, tmp_path: Path, pictures: int
) -> None:
    images = calibration.read(fill(tmp_path / "pictures", pictures)) if pictures else None
    comparison = build(precision="bf16", images=images).comparison
    if not has_bfloat16():
        assert comparison is None
        return
    assert comparison
    kind = "images" if pictures else "generated images"
    assert (comparison.compared, comparison.images) == (pictures or execution.COMPARED, kind)
    assert comparison.agreeing > 0.9 * comparison.compared
    assert 0 < comparison.difference < 0.05


def test_int8_is_compared_on_its_engine_with_fp32(build: Build, tmp_path: Path) -> None:
    images = calibration.read(fill(tmp_path / "pictures", 100))
    lines: list[str] = []
    steps: list[tuple[str, list[int]]] = []

    def progress(step: str) -> calibration.Progress:
        totals: list[int] = []
        steps.append((step, totals))
        return lambda _, total: totals.append(total)

    watch = Watch(progress, lines.append)
    comparison = build(precision="int8", images=images, watch=watch).comparison
    assert steps == [("calibrating", [80] * 80), ("comparing", [20] * 20)]
    assert comparison
    assert (comparison.compared, comparison.images) == (20, "held-out images")
    (line,) = lines
    assert re.sub(r"\d+\.\d times", "X times", line) == (
        "int8 on OpenVINO is X times as fast as fp32 on onnxruntime and X times as fast as fp32 on "
        "OpenVINO on one thread here, with the same top-1 class as fp32 for "
        f"{comparison.agreeing} of 20 held-out images and probabilities that differ by up to "
        f"{comparison.difference:.4f}"
    )


def test_classifiers_on_different_engines_share_their_steps(tmp_path: Path) -> None:
    onnx.save(imagenet(), tmp_path / "imagenet.onnx")
    with builder.session(tmp_path / "model_repository", {"birds", "planes"}) as session:
        for name, tuning in (("birds", Tuning()), ("planes", OPENVINO)):
            source = sources.from_file(tmp_path / "imagenet.onnx", name)
            session.add(source, Request(tuning))
    entries = manifest.read(tmp_path / "model_repository")
    for role in ("preprocess", "postprocess"):
        assert len({entry.parts[role] for entry in entries.values()}) == 1
    assert [entry.tuning for entry in entries.values()] == [Tuning(), OPENVINO]


def test_a_precision_that_is_slower_is_reported(
    build: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(execution, "speeds", lambda *_: (1.0, 0.5, 1.25))
    images = calibration.read(fill(tmp_path / "pictures", 3))
    with caplog.at_level(logging.WARNING):
        build(precision="int8", images=images, watch=Watch(report=lambda _: None))
    assert caplog.messages == [
        "birds: int8 is not faster than fp32 on OpenVINO on this CPU; it needs VNNI instructions"
    ]
