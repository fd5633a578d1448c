"""Quantising graphs: what becomes INT8, what stays FP32, how well they agree, what is rejected."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from scripts.repository import calibration
from scripts.repository.calibration import Images
from scripts.repository.graphs import engines
from scripts.repository.graphs.engines import import_openvino
from scripts.repository.graphs.opset import IR_VERSIONS, OPSETS
from scripts.repository.graphs.pixels import with_pixels
from scripts.repository.graphs.prepare import Prepared, prepare
from scripts.repository.graphs.quantize import quantize
from scripts.repository.graphs.runner import LOG_NOTHING
from scripts.repository.graphs.signature import read_signature
from scripts.repository.graphs.tensors import tensor
from scripts.repository.steps.preprocess.recipe import square
from scripts.repository.tuning import ENGINES
from tests.graphs import CLASSES, CONVOLVED, FILTERS, Array, classifier, convolved
from tests.images import fill

RECIPE = square(37, 32)
AVERAGED = """
    first = Conv<kernel_shape = [3, 3]>(image, filters)
    active = Relu(first)
    second = Conv(active, classes)
    pooled = GlobalAveragePool(second)
    scores = Flatten(pooled)
"""
# Two residual blocks; the second one halves height and width in 1 x 1 convolutions.
RESIDUAL = """
    stem = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(image, first)
    x = Relu(stem)
    a = Conv(x, narrow) b = Relu(a)
    c = Conv<pads = [1, 1, 1, 1]>(b, inner) d = Relu(c)
    e = Conv(d, wide) f = Add(e, x) y = Relu(f)
    g = Conv<strides = [2, 2]>(y, narrow) h = Relu(g)
    i = Conv<group = 8, pads = [1, 1, 1, 1]>(h, depthwise) j = Relu(i)
    k = Conv(j, wide)
    shortcut = Conv<strides = [2, 2]>(y, square)
    l = Add(k, shortcut) z = Relu(l)
    pooled = GlobalAveragePool(z)
    features = Flatten(pooled)
    scores = MatMul(features, last)
"""
RESIDUAL_WEIGHTS = {
    "first": (16, 3, 3, 3),
    "narrow": (8, 16, 1, 1),
    "inner": (8, 8, 3, 3),
    "depthwise": (8, 1, 3, 3),
    "wide": (16, 8, 1, 1),
    "square": (16, 16, 1, 1),
    "last": (16, CLASSES),
}

ATTENTION = """
    patches = Conv<kernel_shape = [8, 8], strides = [8, 8]>(image, embedding)
    rows = Reshape(patches, flat)
    x = Transpose<perm = [0, 2, 1]>(rows)
    normal = LayerNormalization<axis = -1>(x, ones)
    keys = MatMul(normal, key)
    queries = Transpose<perm = [0, 2, 1]>(keys)
    products = MatMul(normal, queries)
    attention = Softmax(products)
    values = MatMul(attention, normal)
    y = Add(x, values)
    features = ReduceMean<axes = [1], keepdims = 0>(y)
    scores = MatMul(features, last)
"""
ATTENTION_WEIGHTS = {
    "embedding": (FILTERS, 3, 8, 8),
    "ones": (FILTERS,),
    "key": (FILTERS, FILTERS),
    "last": (FILTERS, CLASSES),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return calibration.read(fill(tmp_path_factory.mktemp("pictures"), calibration.RECOMMENDED))


@pytest.fixture(scope="module")
def fp32() -> Prepared:
    return prepare(convolved())


@pytest.fixture(scope="module")
def int8(fp32: Prepared, images: Images) -> Prepared:
    return quantize(fp32, images, RECIPE).prepared


def averaged() -> ModelProto:
    model = convolved(AVERAGED)
    weights = np.random.default_rng(4).standard_normal((CLASSES, FILTERS, 1, 1))
    array = numpy_helper.from_array(weights.astype(np.float32), "classes")
    model.graph.initializer.append(array)
    return model


def run(model: ModelProto, pixels: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    scores: Array = session.run(["scores"], {"image": pixels})[0]
    return scores


def tensors(files: Sequence[Path]) -> Array:
    """Images as the graphs of `convolved` take them."""
    signature = read_signature(convolved())
    return np.concatenate(
        [tensor(pixels, RECIPE, signature) for pixels in calibration.pixels(files, RECIPE)]
    )


def agreeing(fp32: Prepared, int8: Prepared, images: Images) -> int:
    """Count the images of the comparison for which both graphs have the same top-1 class."""
    signature = fp32.signature
    taken = [tensor(each, RECIPE, signature) for each in calibration.pixels(images.compare, RECIPE)]
    pixels = np.concatenate(taken)
    before, after = (run(each.model, pixels).argmax(axis=1) for each in (fp32, int8))
    return int((before == after).sum())


def operators(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def weight_types(model: ModelProto) -> set[int]:
    """The types of the convolution's filters, which quantisation renames."""
    shape = [FILTERS, 3, 3, 3]
    return {each.data_type for each in model.graph.initializer if list(each.dims) == shape}


def test_signature_and_scores_are_kept(fp32: Prepared, int8: Prepared) -> None:
    assert int8.signature == fp32.signature
    assert int8.model.graph.input == fp32.model.graph.input
    assert int8.model.graph.output == fp32.model.graph.output
    assert (int8.classes, int8.scores) == (fp32.classes, fp32.scores)


def test_batch_and_image_size_are_variable(int8: Prepared) -> None:
    pixels = np.random.default_rng(0).standard_normal((5, 3, 40, 50)).astype(np.float32)
    together = run(int8.model, pixels)
    np.testing.assert_allclose(
        together, np.concatenate([run(int8.model, image[None]) for image in pixels]), atol=1e-5
    )


def test_weights_are_int8_with_one_scale_per_channel(int8: Prepared) -> None:
    assert weight_types(int8.model) == {TensorProto.INT8}
    scales = [list(each.dims) for each in int8.model.graph.initializer if "scale" in each.name]
    assert [FILTERS] in scales


def test_batch_normalisation_is_folded_into_convolutions(int8: Prepared) -> None:
    assert "QuantizeLinear" in operators(int8.model)
    assert "BatchNormalization" not in operators(int8.model)


def test_batch_normalisation_that_cannot_be_folded_stays_fp32(images: Images) -> None:
    body = "centred = BatchNormalization(image, three, three, three, three)"
    body += CONVOLVED.replace("(image,", "(centred,")
    original = convolved(body)
    numbers = np.array([1e-4, 1, 1e4], np.float32)
    original.graph.initializer.append(numpy_helper.from_array(numbers, "three"))
    model = quantize(prepare(original), images, RECIPE).prepared.model
    (kept,) = (each for each in model.graph.initializer if list(each.dims) == [3])
    np.testing.assert_array_equal(numpy_helper.to_array(kept), numbers)


@pytest.fixture(scope="module")
def residual() -> Prepared:
    rng = np.random.default_rng(5)
    weights = {
        name: (rng.standard_normal(dims) / np.sqrt(np.prod(dims[1:]))).astype(np.float32)
        for name, dims in RESIDUAL_WEIGHTS.items()
    }
    return prepare(classifier(RESIDUAL, initializers=weights))


@pytest.fixture(scope="module")
def residual_int8(
    residual: Prepared, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The INT8 graph as it is served: from pixels of a fixed size to scores."""
    file = tmp_path_factory.mktemp("residual") / "model.onnx"
    onnx.save(with_pixels(quantize(residual, images, RECIPE).prepared, RECIPE), file)
    return file


def test_onnxruntime_computes_all_convolutions_in_int8(residual_int8: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_NOTHING  # the optimised file is for this machine only
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(residual_int8, options)
    computed = Counter(operators(onnx.load(tmp_path / "optimised.onnx")))
    assert (computed["QLinearConv"], computed["QLinearAdd"]) == (RESIDUAL.count("Conv"), 2)
    assert "Conv" not in computed


def test_openvino_computes_all_convolutions_in_int8(residual_int8: Path) -> None:
    core = import_openvino().Core()
    model = core.compile_model(residual_int8, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    layers = (node.get_rt_info() for node in model.get_runtime_model().get_ops())
    kinds = [(each["layerType"].astype(str), each["primitiveType"].astype(str)) for each in layers]
    computed = [name.split("_")[-1] for kind, name in kinds if "Convolution" in kind]
    assert computed == ["I8"] * RESIDUAL.count("Conv")


@pytest.mark.parametrize("engine", ENGINES)
def test_int8_scores_are_close_to_fp32_scores_on_each_engine(
    engine: str, residual: Prepared, residual_int8: Path, images: Images
) -> None:
    expected = run(residual.model, tensors(images.compare))
    pixels = np.concatenate(list(calibration.pixels(images.compare, RECIPE)))
    actual = engines.load(engine, residual_int8)(pixels)
    assert np.abs(actual - expected).max() < 0.05 * np.abs(expected).max()


def test_attention_is_int8_only_where_it_multiplies(images: Images) -> None:
    rng = np.random.default_rng(6)
    weights: dict[str, Array] = {
        name: rng.standard_normal(dims).astype(np.float32)
        for name, dims in ATTENTION_WEIGHTS.items()
    }
    weights["flat"] = np.array([0, FILTERS, -1])
    original = classifier(ATTENTION, initializers=weights, opset=17)
    model = quantize(prepare(original), images, RECIPE).prepared.model
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    consumers = {name: node.op_type for node in model.graph.node for name in node.input}
    products = [node for node in model.graph.node if node.op_type == "MatMul"][:-1]
    assert {producers[name] for node in products for name in node.input} == {"DequantizeLinear"}
    (addition,) = (node for node in model.graph.node if node.op_type == "Add")
    assert consumers[addition.output[0]] != "QuantizeLinear"


def test_the_last_layer_stays_fp32(int8: Prepared) -> None:
    last = int8.model.graph.node[-1]
    assert (last.op_type, list(last.output)) == ("MatMul", ["scores"])
    types = {each.name: each.data_type for each in int8.model.graph.initializer}
    assert types[last.input[1]] == TensorProto.FLOAT


def test_the_last_layer_is_int8_if_its_scores_are_averaged(images: Images) -> None:
    model = quantize(prepare(averaged()), images, RECIPE).prepared.model
    types = {each.data_type for each in model.graph.initializer if len(each.dims) == 4}
    assert types == {TensorProto.INT8}
    assert operators(model)[-2:] == ["GlobalAveragePool", "Flatten"]


@pytest.mark.parametrize(("opset", "ir_version"), [(7, 3), (13, 8), (21, 10)])
def test_the_result_is_standard_onnx_in_supported_versions(
    images: Images, opset: int, ir_version: int
) -> None:
    original = prepare(convolved(opset=opset, ir_version=ir_version))
    quantized = quantize(original, images, RECIPE).prepared
    onnx.checker.check_model(quantized.model, full_check=True)
    assert [opset.domain for opset in quantized.model.opset_import] == [""]
    assert 13 <= quantized.opset <= OPSETS[1]
    assert quantized.model.ir_version <= IR_VERSIONS[1]


def test_int8_scores_are_close_to_fp32_scores(
    fp32: Prepared, int8: Prepared, images: Images
) -> None:
    pixels = tensors(images.compare)
    expected = run(fp32.model, pixels)
    assert np.abs(run(int8.model, pixels) - expected).max() < 0.05 * np.abs(expected).max()
    assert agreeing(fp32, int8, images) >= 18
