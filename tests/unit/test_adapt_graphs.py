"""Finding and replacing the last layer of a graph."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper

from scripts.adaptation import last_layer
from scripts.adaptation.errors import AdaptationError
from scripts.repository import onnx_file
from scripts.repository.catalog import CATALOG
from scripts.repository.graphs import samples, synthetic
from scripts.repository.graphs.signature import read_signature
from tests.exports.rows import FILES
from tests.graphs import CLASSES, FILTERS, classifier

Array = npt.NDArray[Any]

MAP = """
    filtered = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(image, filters)
    map = Relu(filtered)
"""
POOLED = f"{MAP} pooled = GlobalAveragePool(map)"
FLAT = f"{POOLED} features = Flatten(pooled)"
# What each classifier ends with, and the operator of its last layer.
HEADS = {
    "Gemm": (f"{FLAT} scores = Gemm<transB = 1>(features, rows, bias)", "Gemm"),
    "Gemm with columns": (f"{FLAT} scores = Gemm(features, columns, bias)", "Gemm"),
    "MatMul and Add": (
        f"{FLAT} product = MatMul(features, columns) scores = Add(product, bias)",
        "MatMul",
    ),
    "MatMul before a pooling": (
        f"{POOLED} row = Reshape(pooled, one_row) product = MatMul(row, columns) "
        "mean = ReduceMean<axes = [1], keepdims = 0>(product) scores = Add(mean, bias)",
        "MatMul",
    ),
    "softmax": (
        f"{FLAT} logits = Gemm<transB = 1>(features, rows, bias) scores = Softmax(logits)",
        "Gemm",
    ),
    "1x1 convolution of pooled features": (
        f"{POOLED} map_of_scores = Conv(pooled, kernel, bias) scores = Flatten(map_of_scores)",
        "Conv",
    ),
    "convolution, ReLU and pooling": (
        f"{MAP} class_maps = Conv(map, kernel, bias) active = Relu(class_maps) "
        "mean = GlobalAveragePool(active) scores = Reshape(mean, all_rows)",
        "Conv",
    ),
    "complement": (
        f"{FLAT} logits = Gemm<transB = 1>(features, rows, bias) ps = Sigmoid(logits) "
        "others = Sub(one, ps) scores = Concat<axis = 1>(others, ps)",
        "Gemm",
    ),
}
HALF_HEAD = f"""
    {FLAT} small = Cast<to = 10>(features)
    product = MatMul(small, half) scores = Cast<to = 1>(product)
"""
OLD = {"rows", "columns", "kernel", "bias", "half"}


def graph(body: str, **settings: Any) -> ModelProto:
    """A classifier of which only the initializers that it uses are in the file."""
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((CLASSES, FILTERS)).astype(np.float32)
    arrays: dict[str, Array] = {
        "filters": rng.standard_normal((FILTERS, 3, 3, 3)).astype(np.float32),
        "rows": rows,
        "columns": rows.T.copy(),
        "kernel": rows.reshape(CLASSES, FILTERS, 1, 1),
        "half": rows.T.astype(np.float16),
        "wide": rng.standard_normal((CLASSES, FILTERS, 3, 3)).astype(np.float32),
        "bias": rng.standard_normal(CLASSES).astype(np.float32),
        "one": np.ones((), np.float32),
        "one_row": np.array([-1, 1, FILTERS], np.int64),
        "all_rows": np.array([0, -1], np.int64),
        "weight": np.zeros((3, 2), np.float32),
    }
    used = {name: array for name, array in arrays.items() if name in body}
    settings = {"scores": "float[1,C]", **settings}
    model = classifier(body, initializers=used, **settings)
    unused = [tensor for tensor in model.graph.initializer if tensor.name not in used]
    for tensor in unused:
        model.graph.initializer.remove(tensor)
    return model


def expected_features(images: Array) -> Array:
    """Compute the pooled features [N, FILTERS] in NumPy."""
    filters = np.random.default_rng(5)
    filters.standard_normal((CLASSES, FILTERS))  # `rows` is drawn first
    kernel = filters.standard_normal((FILTERS, 3, 3, 3)).astype(np.float32)
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    filtered = sum(
        np.einsum("ncyx,fc->nfyx", padded[:, :, i : i + 32, j : j + 32], kernel[:, :, i, j])
        for i in range(3)
        for j in range(3)
    )
    return np.asarray(np.maximum(filtered, 0).mean(axis=(2, 3)))


def cut(model: ModelProto) -> ModelProto:
    output = read_signature(model).output
    return last_layer.backbone(model, last_layer.find(model, output))


def run(model: ModelProto, images: Array) -> Array:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


@pytest.fixture
def images() -> Array:
    return np.random.default_rng(1).standard_normal((3, 3, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("ir_version", [3, 8])
@pytest.mark.parametrize("head", HEADS)
def test_each_kind_of_last_layer_is_replaced(head: str, ir_version: int, images: Array) -> None:
    body, operator = HEADS[head]
    model = graph(body, ir_version=ir_version)
    if ir_version == 3:  # its initializers are inputs, too
        for tensor in model.graph.initializer:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            model.graph.input.append(value)
    layer = last_layer.find(model, "scores")
    assert (layer.operator, layer.width) == (operator, FILTERS)
    features = cut(model)
    expected = expected_features(images)
    np.testing.assert_allclose(run(features, images), expected, rtol=1e-4, atol=1e-5)
    rng = np.random.default_rng(2)
    weights, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, FILTERS), 4))
    adapted = last_layer.with_layer(features, weights, bias)
    logits = run(adapted, images)
    np.testing.assert_allclose(logits, expected @ weights.T + bias, rtol=1e-4, atol=1e-4)
    assert adapted.graph.output[0].name.startswith("logits")


@pytest.mark.parametrize("head", HEADS)
def test_the_rest_of_the_graph_stays_as_it_is(head: str) -> None:
    model = graph(HEADS[head][0])
    model.metadata_props.add(key="names", value='["old"]')
    before = {tensor.name: tensor for tensor in model.graph.initializer}
    adapted = cut(model)
    assert not OLD & {tensor.name for tensor in adapted.graph.initializer}
    assert not adapted.metadata_props
    for tensor in adapted.graph.initializer:
        assert tensor == before[tensor.name]
    assert adapted.graph.node[:2] == model.graph.node[:2]
    assert adapted.graph.input == model.graph.input
    assert "filters" in {tensor.name for tensor in adapted.graph.initializer}


def test_a_layer_in_fp16_is_replaced_by_one_in_fp32(images: Array) -> None:
    model = graph(HALF_HEAD)
    features = run(cut(model), images)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected_features(images), rtol=2e-3, atol=1e-4)


def test_names_that_the_graph_has_are_not_used_again(images: Array) -> None:
    model = graph(HEADS["Gemm"][0].replace("map", "logits"))
    adapted = last_layer.with_layer(
        cut(model), np.zeros((2, FILTERS), np.float32), np.array([1, 2], np.float32)
    )
    np.testing.assert_array_equal(run(adapted, images), [[1, 2]] * 3)


def test_an_older_opset_is_converted(images: Array) -> None:
    model = graph(HEADS["Gemm"][0].replace("transB = 1", "transB = 1, broadcast = 1"), opset=6)
    features = cut(last_layer.plain(model))
    np.testing.assert_allclose(run(features, images), expected_features(images), rtol=1e-4)


# What exporters write: the old layer, put on the features, gives the old scores.
EXPORTS = [
    *("plain", "dynamo_convnext", "dynamo_swin", "hf_vit", "hf_dinov2", "timm", "fp16"),
    *("log_probabilities", "forgot_eval", "attention", "uint8_nhwc", "maps", "two_outputs"),
]


@pytest.mark.parametrize("name", EXPORTS)
def test_the_old_layer_on_the_features_of_an_export_gives_the_old_scores(name: str) -> None:
    model = onnx_file.read(FILES / name / "model.onnx").model
    signature = read_signature(model)
    signature = replace(signature, height=signature.height or 64, width=signature.width or 64)
    gemm = next(node for node in reversed(model.graph.node) if node.op_type == "Gemm")
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    old, bias = (arrays[name].astype(np.float32) for name in gemm.input[1:])
    transposed = any(each.name == "transB" and each.i for each in gemm.attribute)
    features = cut(model)
    adapted = last_layer.with_layer(features, old if transposed else old.T.copy(), bias)
    before = onnx.ModelProto()
    before.CopyFrom(model)
    del before.graph.output[:]
    kind = onnx.TensorProto.FLOAT16 if name == "fp16" else onnx.TensorProto.FLOAT
    before.graph.output.append(onnx.helper.make_tensor_value_info(gemm.output[0], kind, None))
    pictures = samples.images(model, signature, 1)
    expected = session(before).run(None, {signature.input: pictures})[0]
    got = session(adapted).run(None, {signature.input: pictures})[0]
    tolerance = 5e-3 if name == "fp16" else 1e-5
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


def session(model: ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize(("name", "width"), [("resnet18_v2", 512), ("mobilenetv2", 1280)])
def test_the_last_layer_of_the_zoos_graphs_is_found(name: str, width: int) -> None:
    model = synthetic.build(CATALOG[name])
    layer = last_layer.find(model, CATALOG[name].output)
    assert layer.width == width
    part = last_layer.backbone(model, layer)
    removed = {each.name for each in model.graph.initializer} - {
        each.name for each in part.graph.initializer
    }
    assert removed
    assert all("dense" in each or "pred" in each or "reshape" in each for each in removed)
    onnx.checker.check_model(part)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (f"{MAP} maps = Conv(map, wide) scores = ReduceMean<axes = [2, 3]>(maps)", "not 1x1"),
        (f"{MAP} scores = ReduceMean<axes = [2, 3]>(image)", "no layer has weights"),
        (f"{FLAT} scores = LpNormalization(features)", "LpNormalization"),
        (
            f"{FLAT} one_part = Gemm(features, columns) scores = Add(one_part, features)",
            "Add joins its scores",
        ),
        (
            f"{FLAT} turned = Transpose<perm = [1, 0]>(features) "
            "scores = Gemm<transA = 1>(turned, columns)",
            "transA",
        ),
    ],
)
def test_a_graph_without_a_last_layer_is_refused(body: str, problem: str) -> None:
    with pytest.raises(AdaptationError, match=problem) as error:
        last_layer.find(graph(body), "scores")
    assert "export the classifier" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_last_layer_of_a_quantised_export_is_found() -> None:
    model = onnx_file.read(FILES / "qdq" / "model.onnx").model
    signature = read_signature(model)
    layer = last_layer.find(model, signature.output)
    assert layer.width is None  # its weights are computed
    rows = run(last_layer.backbone(model, layer), samples.images(model, signature, 2))
    assert rows.shape == (2, 32)
