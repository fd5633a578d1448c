"""What kind of scores a graph gives, and how they become probabilities."""

import numpy as np
import onnx
import pytest

from scripts.repository.errors import BuildError
from scripts.repository.graphs.scores import KINDS, Scores, probabilities, recognise
from tests.graphs import Array

LOGITS = np.array([[1.5, -2, 0.5], [0.1, 3, -1]], np.float32)


def softmax(logits: Array) -> Array:
    exponents = np.exp(logits.astype(np.float64))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def sigmoid(logits: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))))


VALUES = {
    "logits": LOGITS,
    "probabilities": softmax(LOGITS),
    "sigmoid": sigmoid(LOGITS),
    "log-probabilities": np.log(softmax(LOGITS)),
}


def graph(body: str) -> onnx.ModelProto:
    """Compute `y` from `x` by the body, with some constants."""
    text = f"""
        <ir_version: 8, opset_import: ["" : 13]>
        scores (float[N,3] x) => (float[N,3] y)
        <float one = {{1}}, float scale = {{0.25}}, uint8 zero_point = {{3}},
         int64[2] shape = {{0, -1}}>
        {{ {body} }}
    """
    model: onnx.ModelProto = onnx.parser.parse_model(text)
    return model


def kind(body: str, values: Array, told: str | None = None) -> str:
    return recognise(graph(body), "y", values, told=told).kind


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = MatMul(x, x)", "logits"),
        ("y = Gemm(x, x)", "logits"),
        ("p = Softmax(x) y = Identity(p)", "probabilities"),
        ("p = Softmax(x) q = Flatten(p) y = Cast<to = 10>(q)", "probabilities"),
        ("y = LogSoftmax(x)", "log-probabilities"),
        ("y = Sigmoid(x)", "sigmoid"),
        ("y = HardSigmoid(x)", "sigmoid"),
        ("p = Sigmoid(x) y = Reshape(p, shape)", "sigmoid"),
        ("a = Sigmoid(x) b = Sigmoid(x) y = Concat<axis = 1>(a, b)", "sigmoid"),
        ("a = Sigmoid(x) b = Sigmoid(x) y = Mean(a, b)", "sigmoid"),
        ("p = Softmax(x) y = ReduceMean<axes = [1]>(p)", "probabilities"),
        ("r = Relu(x) y = GlobalAveragePool(r)", "logits"),
        (
            "p = Sigmoid(x) q = QuantizeLinear(p, scale, zero_point) "
            "y = DequantizeLinear(q, scale, zero_point)",
            "sigmoid",
        ),
    ],
)
def test_the_kind_is_recognised_from_the_last_nodes(body: str, expected: str) -> None:
    assert kind(body, VALUES[expected]) == expected


def test_the_best_scores_without_their_classes_are_rejected() -> None:
    with pytest.raises(BuildError, match="y is a result of TopK, not a score for each class"):
        kind("y, best = TopK(x, shape)", VALUES["logits"])


@pytest.mark.parametrize("expected", KINDS)
def test_the_kind_is_recognised_from_values(expected: str) -> None:
    # Of activations that an exporter has written as arithmetic.
    assert kind("y = Div(x, x)", VALUES[expected]) == expected


def test_logits_that_happen_to_be_between_0_and_1_are_logits() -> None:
    assert kind("y = MatMul(x, x)", np.array([[0.2, 0.9], [0.4, 0.1]])) == "logits"


def test_a_guess_from_the_range_of_values_is_said(caplog: pytest.LogCaptureFixture) -> None:
    recognise(graph("y = Div(x, x)"), "y", VALUES["sigmoid"])
    assert "served as independent probabilities; use --scores logits" in caplog.text


def test_two_complementary_probabilities_of_one_sigmoid_are_probabilities() -> None:
    body = "p = Sigmoid(x) q = Sub(one, p) y = Concat<axis = 1>(q, p)"
    one = sigmoid(LOGITS[:, :1])
    assert kind(body, np.hstack([1 - one, one])) == "probabilities"


def test_scores_of_any_shape_are_one_row_an_image() -> None:
    scores = recognise(graph("y = Gemm(x, x)"), "y", LOGITS.reshape(2, 3, 1, 1))
    assert scores.classes == 3


@pytest.mark.parametrize("dims", [(2, 1), (2,), (2, 1, 1)])
def test_one_probability_an_image_becomes_two_classes(dims: tuple[int, ...]) -> None:
    values = np.array([0.1, 0.7]).reshape(dims)
    scores = recognise(graph("y = Sigmoid(x)"), "y", values)
    assert scores == Scores("sigmoid", "its last node Sigmoid", 2, is_single=True)
    np.testing.assert_allclose(probabilities(values, scores), [[0.9, 0.1], [0.3, 0.7]])


def test_one_logit_an_image_is_rejected_unless_it_is_said_to_be_one() -> None:
    values, model = LOGITS[:, :1], graph("y = MatMul(x, x)")
    for told in (None, "logits", "log-probabilities"):
        with pytest.raises(BuildError, match=r"one score an image.*; use --scores sigmoid"):
            recognise(model, "y", values, told=told)
    scores = recognise(model, "y", values, told="sigmoid")
    assert scores == Scores("sigmoid", "--scores", 2, is_single=True, needs_sigmoid=True)
    one = sigmoid(values)
    np.testing.assert_allclose(probabilities(values, scores), np.hstack([1 - one, one]))


def test_one_score_an_image_can_be_said_to_be_a_probability() -> None:
    model = graph("y = Add(x, x)")
    scores = recognise(model, "y", np.array([[0.2], [0.4]]), told="probabilities")
    assert scores == Scores("sigmoid", "--scores", 2, is_single=True)
    with pytest.raises(BuildError, match="between -1 and 2; use --scores sigmoid"):
        recognise(model, "y", np.array([[-1.0], [2.0]]), told="probabilities")


@pytest.mark.parametrize(
    ("body", "value"), [("y = Softmax(x)", 1), ("y = LogSoftmax(x)", 0), ("y = Div(x, x)", 1)]
)
def test_a_softmax_over_one_score_is_rejected(body: str, value: int) -> None:
    with pytest.raises(BuildError, match=f"every score is {value} .* softmax over one score"):
        recognise(graph(body), "y", np.full((2, 1), value, np.float32))


def test_logits_that_are_said_to_be_sigmoid_need_one() -> None:
    scores = recognise(graph("y = MatMul(x, x)"), "y", LOGITS, told="sigmoid")
    assert scores == Scores("sigmoid", "--scores", 3, needs_sigmoid=True)
    np.testing.assert_allclose(probabilities(LOGITS, scores), sigmoid(LOGITS))


def test_sigmoid_that_are_said_to_be_sigmoid_stay_as_they_are() -> None:
    scores = recognise(graph("y = Sigmoid(x)"), "y", VALUES["sigmoid"], told="sigmoid")
    assert scores == Scores("sigmoid", "--scores", 3)


@pytest.mark.parametrize("told", ["probabilities", "log-probabilities"])
def test_values_that_are_not_what_is_said_are_rejected(told: str) -> None:
    with pytest.raises(
        BuildError, match=rf"to be {told}, but they are between -2 and 3; use --scores logits"
    ):
        kind("y = MatMul(x, x)", LOGITS, told)


@pytest.mark.parametrize(
    ("body", "values", "told"),
    [
        ("y = Softmax(x)", "probabilities", "logits"),
        ("y = Sigmoid(x)", "sigmoid", "logits"),
        ("y = Softmax(x)", "probabilities", "sigmoid"),
        ("y = LogSoftmax(x)", "log-probabilities", "sigmoid"),
    ],
)
def test_what_is_said_against_the_last_node_is_done_and_warned_about(
    body: str, values: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert kind(body, VALUES[values], told) == told
    assert f"the scores are said to be {told}, although its last node" in caplog.text


@pytest.mark.parametrize("told", ["logits", "log-probabilities"])
def test_log_probabilities_are_restored_by_a_softmax(told: str) -> None:
    values = VALUES["log-probabilities"]
    scores = recognise(graph("y = LogSoftmax(x)"), "y", values, told=told)
    np.testing.assert_allclose(probabilities(values, scores), softmax(LOGITS))


def test_a_quantised_output_is_read_by_its_scale() -> None:
    model = graph("logits = MatMul(x, x) y = QuantizeLinear(logits, scale, zero_point)")
    values = np.array([[3, 7, 11], [255, 0, 3]], np.uint8)
    scores = recognise(model, "y", values)
    assert scores.kind == "logits"
    np.testing.assert_allclose(
        probabilities(values, scores), softmax((values.astype(float) - 3) * 0.25)
    )


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((2, 3, 7, 7)), r"y gives \[3, 7, 7\] numbers an image"),
        (np.full((2, 3), np.nan), "not a number"),
        (np.zeros((2, 3), np.uint8), "quantised by an unknown scale"),
    ],
)
def test_values_that_are_not_scores_are_rejected(values: Array, reason: str) -> None:
    with pytest.raises(BuildError, match=reason):
        recognise(graph("y = MatMul(x, x)"), "y", values)
