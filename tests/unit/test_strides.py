"""Strides of 1 x 1 convolutions move towards the input, and the scores do not change."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, helper, numpy_helper

from scripts.repository.graphs import walk
from scripts.repository.graphs.strides import with_early_strides
from tests.graphs import Array

CHANNELS = 4
# With whole numbers this small, sums are exact in every order.
RNG = np.random.default_rng(0)
WEIGHTS = {
    "one": (CHANNELS, CHANNELS, 1, 1),
    "other": (CHANNELS, CHANNELS, 1, 1),
    "halves": (CHANNELS, CHANNELS // 2, 1, 1),
    "three": (CHANNELS, CHANNELS, 3, 3),
    "bias": (CHANNELS,),
    "pixel": (1, CHANNELS, 1, 1),
}

# The end of a stage of ResNet-50 v1: the next stage takes every second pixel of it.
STAGE = """
    a = Conv<pads = [1, 1, 1, 1]>(image, three, bias)
    b = Relu(a)
    c = Conv(b, one, bias)
    d = Add(c, image)
    e = Relu(d)
    f = Conv<strides = [2, 2]>(e, one, bias)
    g = Conv<strides = [2, 2]>(e, other)
    last = Add(f, g)
"""
# Downsampling in torchvision's ResNets: the 3 x 3 convolution has the other stride.
DOWNSAMPLING = """
    a = Relu(image)
    b = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(a, three)
    c = Conv<strides = [2, 2]>(a, one)
    last = Add(b, c)
"""
SHARED = "a = Relu(image) b = Conv<strides = [2, 2]>(a, one) c = GlobalMaxPool(a) last = Add(b, c)"
CHAIN = "a = Conv<strides = [2, 1]>(image, one) last = Conv<strides = [2, 3]>(a, other)"
GROUPS = "a = Relu(image) last = Conv<group = 2, strides = [2, 2]>(a, halves, bias)"
DIFFERENT = """
    a = Relu(image)
    b = Conv<strides = [2, 2]>(a, one)
    c = Conv<strides = [4, 4]>(a, other)
    d = MaxPool<kernel_shape = [1, 1], strides = [2, 2]>(b)
    last = Add(c, d)
"""
BROADCAST = """
    a = GlobalMaxPool(image)
    b = Add(image, a)
    last = Conv<strides = [3, 3]>(b, one)
"""
CONSTANT = "a = Add(image, pixel) last = Conv<strides = [2, 2]>(a, one)"
AUTOMATIC = """
    a = Conv<auto_pad = "SAME_UPPER">(image, three)
    last = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(a, one)
"""
NORMALIZED = """
    a = Conv(image, three)
    b = BatchNormalization(a, bias, bias, bias, variance)
    last = Conv<strides = [2, 2]>(b, one)
"""
PADDED = "a = Relu(image) last = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(a, one)"
# What a subgraph takes keeps all pixels.
SUBGRAPH = """
    a = Relu(image)
    b = Conv<strides = [2, 2]>(a, one)
    c = If (yes) <
        then_branch = then () => (float[n, 4, 1, 1] t) { t = GlobalMaxPool(a) },
        else_branch = else () => (float[n, 4, 1, 1] e) { e = GlobalAveragePool(a) }
    >
    last = Add(b, c)
"""


def graph(body: str) -> ModelProto:
    model: ModelProto = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 13]>
        strided (float[n, {CHANNELS}, h, w] image) => (float[n, {CHANNELS}, y, x] last) {{ {body} }}
        """
    )
    for name, dims in WEIGHTS.items():
        array = RNG.integers(-4, 5, dims).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    variance = np.ones(CHANNELS, np.float32)
    model.graph.initializer.append(numpy_helper.from_array(variance, "variance"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    return model


def run(model: ModelProto, image: Array) -> Array:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    last: Array = session.run(None, {"image": image})[0]
    return last


def strides(model: ModelProto, operator: str) -> list[list[int]]:
    found = (
        walk.attribute(node, "strides") for node in model.graph.node if node.op_type == operator
    )
    return [list(each.ints) if each else [1, 1] for each in found]


@pytest.mark.parametrize(
    ("body", "convolutions", "poolings"),
    [
        (STAGE, [[2, 2], [1, 1], [1, 1], [1, 1]], [[2, 2]]),
        (DOWNSAMPLING, [[2, 2], [1, 1]], [[2, 2]]),
        (SHARED, [[1, 1]], [[2, 2]]),
        (CHAIN, [[1, 1], [1, 1]], [[4, 3]]),
        (GROUPS, [[1, 1]], [[2, 2]]),
        (DIFFERENT, [[1, 1], [1, 1]], [[4, 4], [2, 2], [2, 2]]),
        (BROADCAST, [[1, 1]], [[3, 3], [3, 3]]),
        (CONSTANT, [[1, 1]], [[2, 2]]),
        (AUTOMATIC, [[1, 1], [1, 1]], [[2, 2]]),
        (NORMALIZED, [[2, 2], [1, 1]], []),
        (PADDED, [[2, 2]], []),
        (SUBGRAPH, [[1, 1]], [[2, 2]]),
    ],
)
@pytest.mark.parametrize("size", [(12, 12), (13, 11)])
def test_strides_move_and_scores_stay(
    body: str, convolutions: list[list[int]], poolings: list[list[int]], size: tuple[int, int]
) -> None:
    before = graph(body)
    after = with_early_strides(before)
    assert strides(after, "Conv") == convolutions
    assert sorted(strides(after, "MaxPool"), reverse=True) == poolings
    image = RNG.integers(-8, 9, (2, CHANNELS, *size)).astype(np.float32)
    np.testing.assert_array_equal(run(before, image), run(after, image))


def test_weights_that_are_inputs_stay() -> None:
    before = graph(STAGE)
    before.graph.input.extend(
        helper.make_tensor_value_info(each.name, each.data_type, each.dims)
        for each in before.graph.initializer
    )
    image = RNG.integers(-8, 9, (2, CHANNELS, 12, 12)).astype(np.float32)
    np.testing.assert_array_equal(run(before, image), run(with_early_strides(before), image))


def test_a_graph_without_such_strides_is_not_copied() -> None:
    model = graph(PADDED.replace("one", "three"))
    assert with_early_strides(model) is model
