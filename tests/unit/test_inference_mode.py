"""Graphs in training mode are refused: their scores are not those of an image alone."""

import numpy as np
import onnx
import pytest
from onnx import helper

from scripts.repository.errors import BuildError
from scripts.repository.graphs.prepare import prepare
from tests.graphs import CLASSES, FLEXIBLE, classifier

RANDOM = "different scores each time"
MIXED = "depend on the other images of its batch"
EVAL = r"; call model\.eval\(\) before exporting$"
MULTIPLIED = FLEXIBLE.replace("MatMul(features", "MatMul(dropped")


def with_features(nodes: str) -> str:
    """The nodes compute `dropped` from `features`."""
    return MULTIPLIED.replace("scores =", f"{nodes} scores =")


@pytest.mark.parametrize(
    ("operator", "nodes"),
    [
        ("RandomUniformLike", "noise = RandomUniformLike(features) dropped = Mul(features, noise)"),
        ("RandomNormalLike", "noise = RandomNormalLike(features) dropped = Mul(features, noise)"),
        (
            "RandomUniform",
            "noise = RandomUniform<shape = [1, 3]>() dropped = Mul(features, noise)",
        ),
        ("Bernoulli", "kept = Bernoulli(features) dropped = Mul(features, kept)"),
        ("Dropout", "dropped = Dropout(features, half, yes)"),
        (
            "Dropout",
            "on = Constant<value = bool {1}>() dropped = Dropout(features, half, on)",
        ),
    ],
)
@pytest.mark.parametrize("batch", ["1", "N"])
def test_a_graph_that_draws_random_numbers_is_refused(
    operator: str, nodes: str, batch: str
) -> None:
    original = classifier(
        with_features(nodes),
        image=f"float[{batch},3,32,32]",
        scores=f"float[{batch},{CLASSES}]",
        opset=15,
        initializers={"half": np.array(0.5, np.float32), "yes": np.array(True)},
    )
    with pytest.raises(BuildError, match=rf"{RANDOM} \({operator}\){EVAL}"):
        prepare(original)


def test_random_numbers_that_onnxruntime_does_not_implement_are_named() -> None:
    nodes = "noise = RandomUniformLike(features) dropped = Mul(features, noise)"
    with pytest.raises(BuildError, match=rf"{RANDOM} \(RandomUniformLike\){EVAL}"):
        prepare(classifier(with_features(nodes), opset=22, ir_version=10))


def test_random_numbers_are_found_in_subgraphs() -> None:
    branch = "then () => (float[1,3] noisy) { noisy = RandomNormalLike(features) }"
    other = "else () => (float[1,3] same) { same = Identity(features) }"
    nodes = "sum = ReduceSum<keepdims = 0>(features) positive = Cast<to = 9>(sum)"
    nodes += f"dropped = If(positive) <then_branch = {branch}, else_branch = {other}>"
    with pytest.raises(BuildError, match=rf"{RANDOM} \(RandomNormalLike\)"):
        prepare(classifier(with_features(nodes), opset=15))


def test_random_numbers_are_found_in_functions() -> None:
    original = classifier(with_features("dropped = local.Drop(features)"), opset=15)
    original.opset_import.append(helper.make_opsetid("local", 1))
    drop = onnx.parser.parse_function(
        '<opset_import: ["": 15], domain: "local"> Drop (x) => (y) {'
        " noise = RandomUniformLike(x) y = Mul(x, noise) }"
    )
    original.functions.append(drop)
    with pytest.raises(BuildError, match=rf"{RANDOM} \(RandomUniformLike\)"):
        prepare(original)


@pytest.mark.parametrize(
    "nodes", ["dropped = Dropout(features)", "dropped = Dropout(features, half, no)"]
)
def test_dropout_outside_of_training_is_accepted(nodes: str) -> None:
    values = {"half": np.array(0.5, np.float32), "no": np.array(False)}
    prepared = prepare(classifier(with_features(nodes), opset=15, initializers=values))
    assert prepared.batches == "variable"


NORMALIZED = FLEXIBLE.replace("(image)", "(normal)").replace(
    "pooled =",
    "normal, m, v = BatchNormalization<training_mode = 1>(image, scale, offset, mean, variance)"
    " pooled =",
    1,
)
STATISTICS = {
    name: np.full(3, value, np.float32)
    for name, value in (("scale", 1), ("offset", 0), ("mean", 0.5), ("variance", 2))
}


@pytest.mark.parametrize("batch", ["1", "4", "N"])
def test_normalisation_over_the_batch_is_refused(batch: str) -> None:
    nodes = NORMALIZED.replace("GlobalAveragePool", "GlobalMaxPool")
    original = classifier(
        nodes,
        image=f"float[{batch},3,32,32]",
        scores=f"float[{batch},{CLASSES}]",
        opset=15,
        initializers=STATISTICS,
    )
    match = rf"{MIXED} \(training-mode BatchNormalization\){EVAL}"
    with pytest.raises(BuildError, match=match):
        prepare(original)


def test_scores_that_depend_on_the_batch_in_another_way_are_refused() -> None:
    body = FLEXIBLE.replace("scores =", "each =")
    body += "mean = ReduceMean<axes = [0]>(each) scores = Sub(each, mean)"
    with pytest.raises(BuildError, match=rf"{MIXED}{EVAL}"):
        prepare(classifier(body, image="float[N,3,32,32]", scores=f"float[N,{CLASSES}]"))


def test_instance_normalisation_that_is_written_as_batch_normalisation_is_accepted() -> None:
    body = NORMALIZED.replace("(image, scale", "(channels, scale").replace(
        "normal, m", "channels = Reshape(image, shape) normal, m", 1
    )
    values = STATISTICS | {"shape": np.array([1, 3, 32, 32])}
    prepared = prepare(classifier(body, opset=15, initializers=values))
    assert prepared.difference <= 1e-5


@pytest.mark.parametrize(
    ("head", "match"),
    [("", MIXED), ("channels = Reshape(image, shape) ", RANDOM)],
)
def test_scores_that_change_from_call_to_call_are_refused(head: str, match: str) -> None:
    # onnxruntime updates the running mean in place, and with it the equal offset.
    body = head + NORMALIZED.replace(
        "(image, scale", "(channels, scale" if head else "(image, scale"
    )
    values = STATISTICS | {"mean": STATISTICS["offset"], "shape": np.array([1, 3, 32, 32])}
    with pytest.raises(BuildError, match=match + r".*; call model\.eval\(\)"):
        prepare(classifier(body, opset=15, initializers=values))
