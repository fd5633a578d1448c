"""The limits in the configurations of the steps."""

from dataclasses import replace

import pytest

from scripts.repository.ensemble import ClassifierSpec, postprocess_part, preprocess_part
from scripts.repository.graphs.prepare import prepare
from scripts.repository.graphs.scores import Scores
from scripts.repository.steps.preprocess.limits import Limits
from scripts.repository.steps.preprocess.recipe import Recipe
from scripts.repository.tuning import MAX_BATCH_SIZE, Tuning
from tests.graphs import FLEXIBLE, classifier


@pytest.fixture
def spec() -> ClassifierSpec:
    prepared = prepare(classifier(FLEXIBLE), size=(224, 224))
    return ClassifierSpec("birds", prepared, Recipe(), ("a bird",), Tuning())


def test_the_preprocessing_step_limits_images_requests_and_waiting(spec: ClassifierSpec) -> None:
    config = preprocess_part(spec).to_protobuf()
    assert Limits.from_json(config.parameters["limits"].string_value) == Limits()
    assert config.max_batch_size == MAX_BATCH_SIZE
    policy = config.dynamic_batching.default_queue_policy
    assert policy.TimeoutAction.Name(policy.timeout_action) == "REJECT"
    assert policy.default_timeout_microseconds == 30_000_000
    assert policy.allow_timeout_override


@pytest.mark.parametrize(("classes", "max_top_k"), [(10, "10"), (1000, "1000"), (21_841, "1000")])
def test_the_postprocessing_step_limits_top_k(
    spec: ClassifierSpec, classes: int, max_top_k: str
) -> None:
    larger = replace(
        spec, prepared=replace(spec.prepared, scores=Scores("logits", "values", classes))
    )
    parameters = postprocess_part(larger).to_protobuf().parameters
    assert parameters["max_top_k"].string_value == max_top_k
