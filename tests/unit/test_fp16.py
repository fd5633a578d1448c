"""Converting graphs to FP16: what becomes FP16, what it costs, what overflows, what is refused."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto

from scripts.repository import builder, calibration, execution, onnx_file, sources
from scripts.repository.errors import BuildError
from scripts.repository.execution import Request, Watch
from scripts.repository.graphs import fp16, samples
from scripts.repository.graphs.engines import load
from scripts.repository.graphs.pixels import with_pixels
from scripts.repository.graphs.prepare import Prepared, prepare
from scripts.repository.graphs.runner import LOG_NOTHING, Runner
from scripts.repository.manifest import Entry
from scripts.repository.steps.preprocess.recipe import square
from scripts.repository.tuning import ENGINES, Tuning
from tests.files import contents
from tests.graphs import CLASSES, CONVOLVED, FILTERS, FLEXIBLE, classifier, convolved
from tests.images import fill

RECIPE = square(37, 32)
SIZE = (32, 32)
SOFTMAX = CONVOLVED.replace("scores =", "logits =")
SIGMOID = SOFTMAX + "gates = Sigmoid(logits) scores = Identity(gates)"
SOFTMAX += "scores = Softmax(logits)"
AVERAGED = """
    filtered = Conv(image, kernels)
    last = Relu(filtered)
    pooled = GlobalAveragePool(last)
    scores = Flatten(pooled)
"""
# The shape of the average is computed from itself.
DYNAMIC = AVERAGED.replace(
    "scores = Flatten(pooled)",
    """sizes = Shape(pooled)
    one = Constant<value = int64[1] {0}>()
    minus = Constant<value = int64[1] {-1}>()
    images = Gather(sizes, one)
    shape = Concat<axis = 0>(images, minus)
    scores = Reshape(pooled, shape)""",
)
# It holds its batch of one or of two, so it is run in a loop.
HOLDING = "line = Reshape({}, flat) picked = Gather(line, some) features = Reshape(picked, shape)"
STRIDED = FLEXIBLE.replace("features = Flatten(pooled)", HOLDING.format("pooled"))
# Its pixels are multiplied by a number, and its scores divided by it.
SCALED = """
    large = Mul(image, factor)
    active = Relu(large)
    pooled = GlobalAveragePool(active)
    small = Div(pooled, factor)
    features = Flatten(small)
    scores = MatMul(features, weight)
"""
IN_LOOP = SCALED.replace("features = Flatten(small)", HOLDING.format("small"))
CONDITIONAL = FLEXIBLE.replace(
    "scores = MatMul(features, weight)",
    """yes = Constant<value = bool {1}>()
    scores = If(yes) <
        then_branch = t () => (float[1,10] a) { a = MatMul(features, weight) },
        else_branch = e () => (float[1,10] b) { b = MatMul(features, weight) }>""",
)


def strided(batch: int) -> ModelProto:
    numbers = {"flat": [-1], "some": [*range(3 * batch)], "shape": [batch, 3]}
    arrays = {name: np.array(value, np.int64) for name, value in numbers.items()}
    scores = f"float[{batch},{CLASSES}]"
    return classifier(STRIDED, image=f"float[{batch},3,32,32]", scores=scores, initializers=arrays)


def scaled(factor: float, body: str = SCALED) -> ModelProto:
    numbers = {"flat": [-1], "some": [0, 1, 2], "shape": [1, 3]}
    arrays = {name: np.array(value, np.int64) for name, value in numbers.items()}
    return classifier(body, initializers={"factor": np.array(factor, np.float32), **arrays})


def prepared(model: ModelProto) -> Prepared:
    return prepare(model, size=SIZE)


def types(model: ModelProto) -> dict[str, str]:
    """Ask onnxruntime for the type of each tensor that a node computes."""
    shown = ModelProto()
    shown.CopyFrom(model)
    given = {value.name for value in shown.graph.output}
    names = [name for node in shown.graph.node for name in node.output if name not in given]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_NOTHING
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options)
    return {value.name: value.type for value in session.get_outputs()}


def scores(each: Prepared) -> Any:
    images = samples.images(each.model, each.signature, 6)
    return Runner(each.model, each.signature).run_each(images).astype(np.float64)


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Entry]:
    """Builds a graph in FP16 into a repository, and returns its entry."""

    def run(
        model: ModelProto, tuning: Tuning | None = None, watch: Watch | None = None, **options: Any
    ) -> Entry:
        onnx.save(model, tmp_path / "birds.onnx")
        source = sources.from_file(tmp_path / "birds.onnx", "birds")
        with builder.session(tmp_path / "model_repository", {"birds"}) as session:
            return session.add(source, Request(tuning or Tuning(), "fp16", **options), watch)

    return run


def test_weights_and_activations_are_fp16_and_the_tensors_of_clients_fp32() -> None:
    before = prepared(convolved())
    after = fp16.convert(before).prepared
    assert after.signature == before.signature
    (image,), (output,) = after.model.graph.input, after.model.graph.output
    assert image == before.model.graph.input[0]
    assert output == before.model.graph.output[0]
    assert {tensor.data_type for tensor in after.model.graph.initializer} == {TensorProto.FLOAT16}
    computed = types(after.model)
    assert computed.pop("scores") == "tensor(float)"
    assert set(computed.values()) == {"tensor(float16)"}
    assert (after.opset, after.model.ir_version) == (before.opset, before.model.ir_version)
    onnx.checker.check_model(after.model, full_check=True)


def test_the_graph_that_takes_pixels_normalises_them_in_fp32() -> None:
    after = fp16.convert(prepared(convolved())).prepared
    computed = types(with_pixels(after, RECIPE))
    assert computed["PIXELS/scaled"] == computed["image"] == "tensor(float)"
    assert computed["active"] == "tensor(float16)"


def test_files_are_half_as_large() -> None:
    rng = np.random.default_rng(0)
    filters = rng.standard_normal((512, 3, 3, 3)).astype(np.float32)
    weights = rng.standard_normal((512, CLASSES)).astype(np.float32)
    body = """
        filtered = Conv(image, filters)
        pooled = GlobalAveragePool(filtered)
        features = Flatten(pooled)
        scores = MatMul(features, weights)
    """
    before = prepared(classifier(body, initializers={"filters": filters, "weights": weights}))
    sizes = [
        len(onnx_file.write(each.model)["model.onnx"])
        for each in (before, fp16.convert(before).prepared)
    ]
    assert 0.5 < sizes[1] / sizes[0] < 0.52


@pytest.mark.parametrize(
    ("body", "first"),
    [
        (SOFTMAX, "logits"),
        (SIGMOID, "logits"),
        (AVERAGED, "last"),
        (AVERAGED.replace("scores =", "logits =") + "scores = Softmax(logits)", "last"),
        (DYNAMIC, "pooled"),
    ],
    ids=["softmax", "sigmoid", "average", "average and softmax", "shape of an average"],
)
def test_what_follows_the_last_layer_stays_fp32(body: str, first: str) -> None:
    kernels = np.random.default_rng(1).standard_normal((CLASSES, 3, 3, 3)).astype(np.float32)
    weights = {
        each.name: onnx.numpy_helper.to_array(each) for each in convolved().graph.initializer
    }
    before = prepared(classifier(body, initializers=weights | {"kernels": kernels}))
    after = fp16.convert(before).prepared
    computed = types(after.model)
    names = [name for node in before.model.graph.node for name in node.output]
    for name in names[names.index(first) :]:
        assert computed[name] in {"tensor(float)", "tensor(int64)"}
    assert "tensor(float16)" in computed.values()
    assert after.scores == before.scores
    np.testing.assert_allclose(scores(after), scores(before), atol=0.02 * scores(before).std())


def test_logits_that_are_an_output_beside_the_probabilities_are_kept() -> None:
    model = convolved(SOFTMAX)
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])
    )
    before = prepare(model, size=SIZE, output="scores")
    after = fp16.convert(before).prepared
    assert list(after.model.graph.output) == list(before.model.graph.output)
    assert types(after.model)["logits"] == "tensor(float)"


@pytest.mark.parametrize(
    "model",
    [
        convolved(),
        convolved(SOFTMAX),
        classifier(FLEXIBLE, image="float[1,3,H,W]"),
        classifier(
            "real = Cast<to = 1>(image)" + FLEXIBLE.replace("(image)", "(real)"),
            image="uint8[N,3,32,32]",
        ),
        strided(1),
        strided(2),
    ],
    ids=["fixed batch", "softmax", "any size", "UINT8 input", "loop", "loop over pairs"],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_scores_are_those_of_fp32_but_for_rounding(model: ModelProto, engine: str) -> None:
    before = prepared(model)
    half = fp16.convert(before)
    assert half.limited == ()
    assert bool(half.prepared.body) == bool(before.body)
    expected, served, rounded = map(scores, (before, half.prepared, half.rounded))
    spread = expected.std()
    for each in (served, rounded):
        np.testing.assert_array_equal(each.argmax(axis=1), expected.argmax(axis=1))
        np.testing.assert_allclose(each, expected, atol=0.02 * spread)
    assert np.abs(rounded - expected).max() > 0
    images = samples.images(before.model, before.signature, 6)
    run = load(engine, onnx_file.write(half.prepared.model)["model.onnx"])
    again = np.concatenate([run(image[None]) for image in images])
    np.testing.assert_allclose(again, expected, atol=0.02 * spread)


def test_the_comparison_rounds_every_tensor_to_fp16() -> None:
    rounded = fp16.convert(prepared(scaled(100))).rounded
    image = samples.images(rounded.model, rounded.signature, 1)
    model = ModelProto()
    model.CopyFrom(rounded.model)
    names = ["large", "active", "pooled", "small", "features"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for tensor in session.run(names, {"image": image}):
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, tensor.astype(np.float16))


def test_builds_are_reproducible_and_say_how_well_they_agree(
    build: Callable[..., Entry], tmp_path: Path
) -> None:
    lines: list[str] = []
    entry = build(convolved(), Tuning("gpu"), Watch(report=lines.append), crops=10)
    before = contents(tmp_path / "model_repository")
    build(convolved(), Tuning("gpu"), crops=10)
    assert contents(tmp_path / "model_repository") == before
    assert entry.precision == "fp16"
    assert entry.comparison
    assert (entry.comparison.compared, entry.comparison.images) == (
        execution.COMPARED,
        "generated images",
    )
    assert entry.comparison.agreeing >= 0.9 * execution.COMPARED
    assert 0 < entry.comparison.difference < 0.01
    assert lines == [
        f"fp16 has the same top-1 class as fp32 for {entry.comparison.agreeing} of 40 generated "
        f"images and probabilities that differ by up to {entry.comparison.difference:.4f}"
    ]


@pytest.mark.parametrize("tuning", [Tuning(), Tuning(engine="openvino")])
def test_on_a_cpu_the_speed_is_measured_and_a_gpu_advised(
    build: Callable[..., Entry],
    tmp_path: Path,
    tuning: Tuning,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(execution, "speeds", lambda runs, _: (1.0, 1.04, 1.0)[: len(runs)])
    images = calibration.read(fill(tmp_path / "pictures", 3))
    lines: list[str] = []
    with caplog.at_level(logging.WARNING):
        comparison = build(
            convolved(), tuning, Watch(report=lines.append), images=images
        ).comparison
    assert comparison
    assert (comparison.compared, comparison.images) == (3, "images")
    assert lines[0].startswith("fp16 on ")
    assert " is 1.0 times as fast as fp32 on onnxruntime" in lines[0]
    (warning,) = caplog.messages
    assert warning.startswith("birds: fp16 is not faster than fp32 on onnxruntime")
    assert warning.endswith("on this CPU; it needs a GPU (--device gpu)")


@pytest.mark.parametrize("model", [scaled(40_000), scaled(40_000, IN_LOOP)], ids=["", "loop"])
def test_activations_beyond_fp16_are_refused_and_named(
    build: Callable[..., Entry], model: ModelProto
) -> None:
    with pytest.raises(BuildError) as caught:
        build(model)
    assert str(caught.value).startswith(
        "birds: FP16 gives scores that are not finite for an image: the tensor large has numbers up"
    )
    assert str(caught.value).endswith("of FP16 is 65,504; build it with --precision fp32")
    assert "\n" not in str(caught.value)


def test_a_quotient_of_numbers_that_become_0_is_refused(build: Callable[..., Entry]) -> None:
    numbers = """
        little = Mul(image, tiny) less = Mul(little, tiny) least = Mul(less, image)
        quotient = Div(least, less)
    """
    tiny = {"tiny": np.array(1e-5, np.float32)}
    model = classifier(numbers + FLEXIBLE.replace("(image)", "(quotient)"), initializers=tiny)
    reason = "birds: FP16 gives scores that are not finite for an image; build it with --precision"
    with pytest.raises(BuildError, match=reason):
        build(model)


def test_constants_beyond_fp16_are_limited_with_a_warning(
    build: Callable[..., Entry], caplog: pytest.LogCaptureFixture
) -> None:
    body = FLEXIBLE.replace("scores =", "all =") + "scores = Clip(all, low, high)"
    limits = {name: np.array(value, np.float32) for name, value in (("low", -1e9), ("high", 1e9))}
    entry = build(classifier(body, initializers=limits), Tuning("gpu"))
    assert entry.comparison
    assert caplog.messages == [
        f"birds: the constant {name} has numbers up to 1e+09, which are limited to the largest of "
        "FP16, 65,504"
        for name in limits
    ]


def test_a_graph_in_fp16_is_served_as_it_is(
    build: Callable[..., Entry], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half = fp16.convert(prepared(convolved())).prepared.model
    entry = build(half, Tuning("gpu"))
    assert (entry.precision, entry.comparison) == ("fp16", None)
    assert caplog.messages == [
        "birds: the graph computes in FP16 already; it is served as it is, and not compared with "
        "fp32"
    ]
    served = onnx.load(tmp_path / "model_repository" / "birds_onnx" / "1" / "model.onnx")
    assert list(served.graph.node) == list(half.graph.node)


QUANTIZED = """
    q = QuantizeLinear(image, unit, nought)
    real = DequantizeLinear(q, unit, nought)
    pooled = GlobalAveragePool(real)
    features = Flatten(pooled)
    scores = MatMul(features, weight)
"""
DOUBLE = """
    features = ReduceMean<axes = [2, 3], keepdims = 0>(image)
    scores = MatMul(features, weights)
"""


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            classifier(
                QUANTIZED,
                initializers={"unit": np.array(0.1, np.float32), "nought": np.array(0, np.int8)},
            ),
            "the graph is quantised, which cannot become FP16; build it with --precision fp32",
        ),
        (
            classifier(
                DOUBLE,
                image="double[1,3,32,32]",
                scores=f"double[1,{CLASSES}]",
                initializers={"weights": np.ones((3, CLASSES)) * np.arange(CLASSES)},
            ),
            "the weights of the graph are not FP32, so none become FP16; build it with --precision",
        ),
        (classifier(CONDITIONAL), "the graph has a node If with graphs inside, which cannot"),
    ],
    ids=["INT8", "FP64", "If"],
)
def test_what_cannot_become_fp16_is_refused(
    build: Callable[..., Entry], model: ModelProto, reason: str
) -> None:
    with pytest.raises(BuildError, match=f"^birds: {reason}"):
        build(model)


def test_a_graph_with_its_weights_in_another_file_is_converted(
    build: Callable[..., Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = CONVOLVED.replace("filters", "wide").replace("weight)", "last)")
    for name in ("ones", "zeros"):
        body = body.replace(name, f"many_{name}")
    arrays = {
        "wide": np.random.default_rng(0).standard_normal((FILTERS * 50, 3, 3, 3)),
        "last": np.random.default_rng(1).standard_normal((FILTERS * 50, CLASSES)),
        "many_ones": np.ones(FILTERS * 50),
        "many_zeros": np.zeros(FILTERS * 50),
    }
    model = classifier(
        body, initializers={name: array.astype(np.float32) for name, array in arrays.items()}
    )
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 10_000)
    entry = build(model)
    assert entry.comparison
    folder = tmp_path / "model_repository" / "birds_pixels" / "1"
    assert {file.name for file in folder.iterdir()} == {"model.onnx", "model.onnx.data"}
    weights = (arrays["wide"].size + arrays["last"].size) * 2
    assert weights <= (folder / "model.onnx.data").stat().st_size < 1.3 * weights
