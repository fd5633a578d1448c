"""Comparing engines and precisions: what OpenVINO gets wrong is found, and agreement is counted."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

from scripts.repository.errors import BuildError
from scripts.repository.graphs import samples
from scripts.repository.graphs.agreement import check_openvino, compare
from scripts.repository.graphs.scores import Scores
from scripts.repository.graphs.signature import read_signature
from scripts.repository.manifest import Comparison
from tests.graphs import CLASSES, CONVOLVED, FLEXIBLE, Array, classifier, convolved, half, shape

LOGITS = Scores("logits", "the test", CLASSES)
SIGMOID = replace(LOGITS, kind="sigmoid")


def check(model: ModelProto, kind: Scores = LOGITS) -> None:
    signature = replace(read_signature(model), height=32, width=32)
    images = samples.images(model, signature, 3)
    check_openvino(model, {"model.onnx": model.SerializeToString()}, signature, images, kind)


def variable(body: str = FLEXIBLE, **settings: Any) -> ModelProto:
    return classifier(body, image="float[N,3,32,32]", scores=f"float[N,{CLASSES}]", **settings)


QUANTISED = "bytes, scale, zero = DynamicQuantizeLinear(features) real = DequantizeLinear(bytes, "
QUANTISED = FLEXIBLE.replace("scores =", f"{QUANTISED}scale, zero) scores =").replace(
    "MatMul(features", "MatMul(real"
)


@pytest.mark.parametrize(
    "model",
    [
        variable(),
        convolved(image="float[N,3,32,32]", scores=f"float[N,{CLASSES}]"),
        convolved(image="float[N,3,H,W]", scores=f"float[N,{CLASSES}]"),
        variable(QUANTISED),
        half(image="float[N,3,32,32]", scores=f"float[N,{CLASSES}]"),
    ],
    ids=["fp32", "convolved", "any size", "int8", "fp16"],
)
def test_a_graph_that_both_engines_compute_alike_is_accepted(model: ModelProto) -> None:
    check(model)


# OpenVINO ignores that these are antialiased, and computes other pixels.
ANTIALIASED = """
    image2 = Resize<antialias = 1, mode = "linear">(image, none, none, sizes)
    rows = Reshape(image2, shape)
    scores = MatMul(rows, weight)
"""


def antialiased() -> ModelProto:
    none = np.zeros(0, np.float32)
    weight = np.random.default_rng(1).standard_normal((3 * 4 * 4, CLASSES)).astype(np.float32)
    values: dict[str, Array] = {"none": none, "wide": weight, **shape(-1, 48)}
    body = ANTIALIASED.replace("none, none, sizes", "none, scales").replace("weight", "wide")
    values["scales"] = np.array([1, 1, 0.125, 0.125], np.float32)
    return variable(body, opset=18, initializers=values)


def test_a_graph_that_openvino_computes_otherwise_is_refused() -> None:
    with pytest.raises(BuildError, match=r"OpenVINO computes other values of scores than onnxr"):
        check(antialiased())


def test_other_outputs_are_compared_as_well() -> None:
    model = antialiased()
    body = "pooled = GlobalAveragePool(image) rows2 = Flatten(pooled) right = MatMul(rows2, weight)"
    pooled = variable(body.replace("right", "scores")).graph
    for node in pooled.node:
        node.output[:] = [name.replace("scores", "right") for name in node.output]
    model.graph.node.extend(pooled.node)
    right = onnx.helper.make_tensor_value_info("right", TensorProto.FLOAT, ["N", CLASSES])
    model.graph.output.append(right)
    signature = replace(read_signature(model, output="right"), height=32, width=32)
    images = samples.images(model, signature, 3)
    with pytest.raises(BuildError, match="other values of scores"):
        check_openvino(model, {"m": model.SerializeToString()}, signature, images, LOGITS)


def test_a_graph_that_openvino_cannot_load_is_refused_in_one_line() -> None:
    reason = "^OpenVINO cannot load the graph: First dimension of input data must be static"
    with pytest.raises(BuildError, match=reason) as caught:
        check(variable(FLEXIBLE.replace("GlobalAveragePool", "GlobalLpPool")))
    assert "\n" not in str(caught.value)


def test_saturated_sigmoids_may_differ_by_what_no_client_sees() -> None:
    body = CONVOLVED.replace("scores =", "raw =")
    body += "shifted = Add(raw, shift) scores = Sigmoid(shifted)"
    model = convolved(body, image="float[N,3,32,32]", scores=f"float[N,{CLASSES}]")
    shift = onnx.numpy_helper.from_array(np.array(-60, np.float32), "shift")
    model.graph.initializer.append(shift)
    check(model, SIGMOID)


def rows(*values: float) -> Array:
    return np.array([values], np.float32)


def test_agreement_and_the_largest_difference_in_probability_are_counted() -> None:
    pixels = [np.full((1, 1, 1, 1), number, np.uint8) for number in range(4)]

    def fp32(image: Array) -> Array:
        return rows(0.5, 0.25, 0.25)

    def served(image: Array) -> Array:
        return rows(0.4, 0.6, 0.0) if image.item() == 1 else rows(0.55, 0.2, 0.25)

    kind = Scores("probabilities", "the test", 3)
    assert compare(fp32, served, pixels, kind, "images") == Comparison(4, 3, 0.35, "images")


def test_logits_are_compared_as_probabilities() -> None:
    pixels = [np.zeros((1, 1, 1, 1), np.uint8)]
    comparison = compare(
        lambda _: rows(0, 0), lambda _: rows(0, np.log(3)), pixels, LOGITS, "generated images"
    )
    assert comparison == Comparison(1, 0, 0.25, "generated images")
