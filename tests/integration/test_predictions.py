"""The served top-5 equals that of Pillow and onnxruntime with the original graph."""

import functools
import itertools

import numpy as np
import onnxruntime
import pytest

from client import Classification, Classifier
from scripts.embedded import EmbeddedServer
from scripts.repository.catalog import CATALOG
from scripts.repository.graphs import synthetic
from scripts.repository.steps.preprocess.imaging import load
from tests import images, reference
from tests.integration.conftest import PROTOCOLS, url
from tests.reference import Best


@functools.lru_cache(maxsize=1)
def expected(name: str) -> list[Best]:
    """Compute the reference's top-5 of each test picture, with the graph before preparation."""
    model = CATALOG[name]
    session = onnxruntime.InferenceSession(synthetic.build(model).SerializeToString())
    # The unit tests compare the preprocessing step with the zoo's code.
    pictures = [np.asarray(load(data, model.recipe), np.int64) for data in images.mixed_sizes()]
    pixels = [reference.normalized(picture) for picture in pictures]
    return [reference.best(row) for row in reference.logits(session, pixels)]


def assert_same(results: list[Classification], expected: list[Best]) -> None:
    assert len(results) == len(expected)
    for result, best in zip(results, expected, strict=True):
        assert [each.class_id for each in result.predictions] == best.classes
        probabilities = [each.probability for each in result.predictions]
        np.testing.assert_allclose(probabilities, best.probabilities, atol=1e-4)


# A graph does not know the protocol, so that one model shows all four ways.
WAYS = list(itertools.product(PROTOCOLS, ("batch of 1", "mixed batch")))
SMALLEST = "mobilenetv2"


@pytest.mark.parametrize(
    ("name", "over", "how"),
    [
        (name, *way)
        for name in CATALOG
        for way in (WAYS if name == SMALLEST else [WAYS[0], WAYS[-1]])
    ],
)
def test_served_top_5_equals_the_reference(
    server: EmbeddedServer, name: str, over: str, how: str
) -> None:
    pictures = images.mixed_sizes()
    with Classifier(url(server, over), model=name) as classifier:
        if how == "mixed batch":
            results = classifier.batch(pictures)
        else:
            results = [classifier.image(picture) for picture in pictures]
    assert_same(results, expected(name))


def test_reference_distinguishes_the_test_pictures() -> None:
    assert len({tuple(best.classes) for best in expected("resnet18_v1")}) > 1
