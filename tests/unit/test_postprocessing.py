"""The code of the postprocessing step, without Triton."""

import json

import numpy as np
import pytest

from scripts.repository.steps.postprocess.ranking import best, softmax, top_k_of
from tests import reference


@pytest.mark.parametrize("scale", [1, 100, 1e4, 1e30])
def test_softmax_is_exact_for_logits_of_any_size(scale: float) -> None:
    logits = (np.random.default_rng(0).standard_normal(1000) * scale).astype(np.float32)
    expected = reference.best(logits, k=1000)
    probabilities = softmax(logits)[expected.classes]
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-6)


def test_classes_are_ordered_by_score_and_then_by_number() -> None:
    assert best(np.array([0.1, 0.9, 0.9, 0.3], np.float32), 3).tolist() == [1, 2, 3]
    assert best(np.array([4, 3, 2, 1], np.float32), 3).tolist() == [0, 1, 2]
    assert best(np.zeros(1000, np.float32), 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("k", [1, 5, 999, 1000])
def test_best_classes_equal_those_of_a_full_sort(k: int) -> None:
    scores = np.random.default_rng(k).integers(0, 50, 1000).astype(np.float32)
    assert best(scores, k).tolist() == np.argsort(-scores, kind="stable")[:k].tolist()


def test_nan_ranks_below_every_number() -> None:
    scores = np.array([np.nan, 1, np.nan, 2], np.float32)
    assert best(scores, 2).tolist() == [3, 1]
    assert best(scores, 3).tolist() == [3, 1, 0]


@pytest.mark.parametrize("parameters", ["", "{}", '{"other": 1}'])
def test_default_top_k_is_5(parameters: str) -> None:
    assert top_k_of(parameters, largest=1000) == 5


def test_default_top_k_is_the_number_of_classes_if_fewer_than_5() -> None:
    assert top_k_of("", largest=3) == 3


@pytest.mark.parametrize("top_k", [1, 7, 1000])
def test_top_k_may_be_1_to_the_number_of_classes(top_k: int) -> None:
    assert top_k_of(json.dumps({"top_k": top_k}), largest=1000) == top_k


@pytest.mark.parametrize("top_k", [0, -1, 1001, 2.0, 2.5, "3", True, None, [1]])
def test_any_other_top_k_is_rejected(top_k: object) -> None:
    with pytest.raises(ValueError, match="top_k must be a whole number from 1 to 1000, not"):
        top_k_of(json.dumps({"top_k": top_k}), largest=1000)
