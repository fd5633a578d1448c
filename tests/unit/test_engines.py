"""Running graphs in onnxruntime and OpenVINO, without a server."""

import importlib.util
import sys
from typing import Any

import numpy as np
import onnx
import pytest

from scripts.repository.errors import BuildError
from scripts.repository.graphs import engines
from scripts.repository.tuning import ENGINES
from tests.graphs import CLASSES, FLEXIBLE, Array, classifier, convolved

IMAGES = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)


def variable(body: str = FLEXIBLE, **settings: Any) -> bytes:
    image, scores = "float[N,3,32,32]", f"float[N,{CLASSES}]"
    return classifier(body, image=image, scores=scores, **settings).SerializeToString()


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_run_batches_of_any_size_one_after_another(engine: str) -> None:
    run = engines.load(engine, variable())
    together = run(IMAGES)
    assert together.shape == (3, CLASSES)
    each = np.concatenate([run(image[None]) for image in IMAGES])
    np.testing.assert_allclose(each, together, rtol=1e-5, atol=1e-6)


def test_engines_compute_the_same() -> None:
    graph = variable()
    before, after = (engines.load(engine, graph)(IMAGES) for engine in ENGINES)
    np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_answer_is_kept_when_the_next_one_is_computed(engine: str) -> None:
    run = engines.load(engine, variable())
    first = run(IMAGES[:1])
    before = first.copy()
    run(IMAGES[1:2])
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_tensor_that_cannot_be_written_is_read(engine: str) -> None:
    frozen: Array = IMAGES[:, ::-1]
    frozen.flags.writeable = False
    scores = engines.load(engine, variable())(frozen)
    np.testing.assert_allclose(scores, engines.load(engine, variable())(frozen.copy()), rtol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_output_is_chosen_by_name(engine: str) -> None:
    model = onnx.load_model_from_string(variable())
    features = onnx.helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["N", 3])
    model.graph.output.append(features)
    graph = model.SerializeToString()
    assert engines.load(engine, graph, output="features")(IMAGES).shape == (3, 3)
    assert engines.load(engine, graph)(IMAGES).shape == (3, CLASSES)


def test_fp32_is_computed_in_fp32_and_bf16_in_bfloat16_where_the_cpu_has_it() -> None:
    graph = convolved(image="float[N,3,32,32]", scores=f"float[N,{CLASSES}]").SerializeToString()
    expected = engines.load("onnxruntime", graph)(IMAGES)
    spread = expected.std()
    fp32, bf16 = (
        engines.load("openvino", graph, precision=each)(IMAGES) for each in ("fp32", "bf16")
    )
    assert np.abs(fp32 - expected).max() < 1e-5 * spread
    rounding = np.abs(bf16 - expected).max() / spread
    assert (1e-4 < rounding < 0.1) if engines.has_bfloat16() else rounding < 1e-5


UNKNOWN = "pooled = NonZero(image) scores = Nothing(pooled)"
INCOMPATIBLE = "features = Flatten(image) scores = MatMul(features, weight)"


@pytest.mark.parametrize(
    ("engine", "graph", "message"),
    [
        ("openvino", b"nothing", "OpenVINO cannot load the graph: Unable to read the model"),
        ("onnxruntime", b"nothing", "onnxruntime cannot load the graph: "),
        ("openvino", variable(UNKNOWN), "No conversion rule found for operations: Nothing"),
        ("openvino", variable(INCOMPATIBLE), "graph: Incompatible MatMul matrix dimension"),
    ],
)
def test_a_graph_that_cannot_be_loaded_is_reported_in_one_line(
    engine: str, graph: bytes, message: str
) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        engines.load(engine, graph)
    assert "\n" not in str(caught.value)
    assert "src/" not in str(caught.value)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_graph_that_cannot_be_run_is_reported_in_one_line(engine: str) -> None:
    run = engines.load(engine, variable())
    with pytest.raises(BuildError, match=r"cannot run the graph: \S") as caught:
        run(IMAGES[:, :2])
    assert "\n" not in str(caught.value)
    assert "src/" not in str(caught.value)


def test_openvino_that_is_not_installed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BuildError, match="not installed; run pip install --group build"):
        engines.load("openvino", variable())


def test_installed_engines_are_found_without_importing_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert engines.installed() == ENGINES
    find = importlib.util.find_spec
    monkeypatch.setattr(
        engines, "find_spec", lambda name: None if name == "openvino" else find(name)
    )
    assert engines.installed() == ("onnxruntime",)
