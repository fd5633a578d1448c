"""The postprocessing step's own code, outside Triton."""

import json

import numpy as np
import pytest

from scripts.repository.steps.postprocess.ranking import best, softmax, top_k_of
from tests import reference


@pytest.mark.parametrize("scale", [1, 100, 1e4, 1e30])
def test_softmax_is_exact_however_large_the_logits_are(scale: float) -> None:
    logits = (np.random.default_rng(0).standard_normal(1000) * scale).astype(np.float32)
    expected = reference.best(logits, k=1000)
    probabilities = softmax(logits)[expected.classes]
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-6)


def test_the_best_classes_come_best_first_and_equal_ones_in_class_order() -> None:
    assert best(np.array([0.1, 0.9, 0.9, 0.3], np.float32), 3).tolist() == [1, 2, 3]
    assert best(np.array([4, 3, 2, 1], np.float32), 3).tolist() == [0, 1, 2]
    assert best(np.zeros(1000, np.float32), 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("k", [1, 5, 999, 1000])
def test_the_best_classes_are_those_of_a_full_sort(k: int) -> None:
    scores = np.random.default_rng(k).integers(0, 50, 1000).astype(np.float32)
    assert best(scores, k).tolist() == np.argsort(-scores, kind="stable")[:k].tolist()


def test_what_is_no_number_is_never_better_than_one() -> None:
    scores = np.array([np.nan, 1, np.nan, 2], np.float32)
    assert best(scores, 2).tolist() == [3, 1]
    assert best(scores, 3).tolist() == [3, 1, 0]


@pytest.mark.parametrize("parameters", ["", "{}", '{"other": 1}'])
def test_top_k_is_5_unless_told(parameters: str) -> None:
    assert top_k_of(parameters, classes=1000) == 5


def test_top_k_is_every_class_where_there_are_fewer_than_5() -> None:
    assert top_k_of("", classes=3) == 3


@pytest.mark.parametrize("top_k", [1, 7, 1000])
def test_top_k_may_be_one_to_the_number_of_classes(top_k: int) -> None:
    assert top_k_of(json.dumps({"top_k": top_k}), classes=1000) == top_k


@pytest.mark.parametrize("top_k", [0, -1, 1001, 2.0, 2.5, "3", True, None, [1]])
def test_any_other_top_k_is_refused(top_k: object) -> None:
    with pytest.raises(ValueError, match="top_k must be a whole number from 1 to 1000"):
        top_k_of(json.dumps({"top_k": top_k}), classes=1000)
