"""Comparing scores: what rounding explains, and what it does not."""

import numpy as np
import pytest

from scripts.repository.errors import BuildError
from scripts.repository.graphs.compare import Reference, difference, precision
from scripts.repository.graphs.original import run_original
from scripts.repository.graphs.prepare import prepare
from scripts.repository.graphs.signature import read_signature
from tests.graphs import CLASSES, FLEXIBLE, Array, classifier, convolved

SCORES = np.array([[0.0, 1, 2], [3, 4, 5]], np.float32)


def test_differences_are_relative_to_the_spread_of_the_scores() -> None:
    moved = SCORES + np.float32(0.01)
    assert difference(SCORES, SCORES) == 0
    assert difference(SCORES, moved) == pytest.approx(0.01 / SCORES.std(), rel=1e-3)
    assert difference(1000 * SCORES, 1000 * moved) == pytest.approx(
        difference(SCORES, moved), rel=1e-3
    )


def test_scores_that_hardly_differ_are_compared_relative_to_their_size() -> None:
    scores = np.array([[100, 100], [100, 100.00001]], np.float32)
    assert difference(scores, scores + np.float32(1e-4)) < 2e-5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_must_be_so_in_both(value: float) -> None:
    infinite = SCORES.copy()
    infinite[0, 0] = value
    assert difference(infinite, infinite) == 0
    assert difference(SCORES, infinite) == difference(infinite, SCORES) == np.inf


def test_other_shapes_are_no_difference_but_an_error() -> None:
    with pytest.raises(BuildError, match=r"its output is \[2, 1\] instead of \[2, 3\]"):
        difference(SCORES, SCORES[:, :1])


def reference(body: str, **values: Array) -> Reference:
    model = classifier(
        body, image="float[N,3,8,8]", scores=f"float[N,{CLASSES}]", initializers=values
    )
    return run_original(model, read_signature(model), None)


def test_a_difference_above_rounding_is_refused() -> None:
    original = reference(FLEXIBLE)
    spread = original.scores.std()
    assert original.check(original.scores + np.float32(5e-6) * spread) <= 1e-5
    with pytest.raises(BuildError, match=r"differ from the original by 1\.\de-04 of their spread"):
        original.check(original.scores + np.float32(1e-4) * spread)


def test_a_graph_that_amplifies_rounding_may_differ_more() -> None:
    # Nearly equal terms cancel out, so that rounding is all that is left of them.
    body = """
        filtered = Conv<kernel_shape = [3, 3]>(image, filters)
        normal = BatchNormalization(filtered, scale, zero, zero, scale)
        same = Mul(filtered, factor)
        rounding = Sub(normal, same)
        pooled = GlobalAveragePool(rounding)
        features = Flatten(pooled)
        scores = MatMul(features, weight)
    """
    values = {
        "filters": np.random.default_rng(0).standard_normal((3, 3, 3, 3)),
        "scale": np.full(3, 1.1),
        "zero": np.zeros(3),
        "factor": np.array(1.1 / np.sqrt(1.1 + 1e-5)),
    }
    floats = {name: value.astype(np.float32) for name, value in values.items()}
    original = reference(body, **floats)
    slightly = np.float32(1e-4) * original.scores.std()
    assert original.check(original.scores + slightly) > 1e-5


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (FLEXIBLE, "FP32"),
        (FLEXIBLE.replace("scores =", "s = Cast<to = 10>(half) scores ="), "FP16"),
        (
            FLEXIBLE.replace("scores =", "q = QuantizeLinear(features, scale) scores ="),
            "INT8",
        ),
        (
            FLEXIBLE.replace("scores =", "q, s, z = DynamicQuantizeLinear(features) scores ="),
            "INT8",
        ),
    ],
)
def test_the_precision_is_recognised(body: str, expected: str) -> None:
    model = classifier(
        body, initializers={"half": np.ones(1, np.float16)} if "half" in body else {}
    )
    assert precision(model) == expected


def test_scores_of_fp16_may_differ_by_the_rounding_of_fp16() -> None:
    body = "small = Cast<to = 10>(image) pooled = GlobalAveragePool(small)"
    body += "features = Flatten(pooled) each = MatMul(features, half) scores = Cast<to = 1>(each)"
    weight = np.random.default_rng(0).standard_normal((3, CLASSES)).astype(np.float16)
    original = reference(body, half=weight)
    spread = original.scores.std()
    assert original.check(original.scores + np.float32(1e-3) * spread) > 1e-5
    with pytest.raises(BuildError, match="differ"):
        original.check(original.scores + np.float32(0.1) * spread)


DYNAMIC = """
    pooled = GlobalAveragePool(image)
    features = Flatten(pooled)
    bytes, scale, zero = DynamicQuantizeLinear(features)
    rounded = DequantizeLinear(bytes, scale, zero)
    scores = MatMul(rounded, weight)
"""


def test_a_dynamically_quantised_graph_is_served_though_batches_round_differently() -> None:
    model = classifier(DYNAMIC, image="float[N,3,32,32]", scores=f"float[N,{CLASSES}]")
    assert 0 < prepare(model).difference < 0.05


def test_the_largest_difference_is_recorded() -> None:
    prepared = prepare(convolved())
    assert 0 <= prepared.difference <= 1e-5
