"""The top-5 of each classifier equals that of Pillow and onnxruntime with the original graph."""

import functools
import itertools
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from client import Classification, Classifier
from scripts.embedded import EmbeddedServer
from scripts.repository.catalog import CATALOG
from scripts.repository.graphs import engines, synthetic
from scripts.repository.steps.preprocess.imaging import load
from tests import images, reference
from tests.files import contents
from tests.graphs import Array
from tests.integration.conftest import KINDS, PROTOCOLS, url
from tests.reference import Best

GRAPH = "1/model.onnx"


def pixels(name: str) -> Array:
    """The test pictures as the preprocessing step decodes them: UINT8 [N, 224, 224, 3].

    The unit tests compare the step with the zoo's code.
    """
    recipe = CATALOG[name].recipe
    return np.stack([np.asarray(load(data, recipe)) for data in images.mixed_sizes()])


@functools.lru_cache(maxsize=1)
def expected(name: str) -> list[Best]:
    """Compute the reference's top-5 of each test picture, with the graph before preparation."""
    session = onnxruntime.InferenceSession(synthetic.build(CATALOG[name]).SerializeToString())
    tensors = [reference.normalized(picture.astype(np.int64)) for picture in pixels(name)]
    return [reference.best(row) for row in reference.logits(session, tensors)]


def assert_same(results: list[Classification], expected: list[Best]) -> None:
    rows = [result.predictions for result in results]
    found = [
        Best([each.class_id for each in row], [each.probability for each in row]) for row in rows
    ]
    assert_close(found, expected)


def assert_close(found: list[Best], expected: list[Best]) -> None:
    assert [each.classes for each in found] == [each.classes for each in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)


# A graph does not know the protocol, so that one model shows all four ways.
WAYS = list(itertools.product(PROTOCOLS, ("batch of 1", "mixed batch")))
SMALLEST = "mobilenetv2"


@pytest.mark.parametrize(
    ("name", "over", "how"),
    [(name, *way) for name in KINDS for way in (WAYS if name == SMALLEST else [WAYS[0], WAYS[-1]])],
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


NOT_SERVED = [name for name in CATALOG if name not in KINDS]


@pytest.mark.parametrize("name", NOT_SERVED)
def test_top_5_of_the_other_graphs_equals_the_reference(repository: Path, name: str) -> None:
    run = engines.load("onnxruntime", repository / f"{name}_pixels" / GRAPH, threads=2)
    pictures = pixels(name)
    alone = np.concatenate([run(picture[None]) for picture in pictures])
    for scores in (alone, run(pictures)):
        assert_close([reference.best(row) for row in scores], expected(name))


@pytest.mark.parametrize("role", ["", "_pixels", "_onnx"])
@pytest.mark.parametrize("name", NOT_SERVED)
def test_their_configurations_are_those_of_a_served_classifier(
    repository: Path, name: str, role: str
) -> None:
    assert configuration(repository, name, role) == configuration(repository, "resnet50_v1", role)


def configuration(repository: Path, name: str, role: str) -> dict[str, bytes]:
    """Read the files of a model but for its graph, with the names replaced that are its own."""
    files = contents(repository / f"{name}{role}")
    files.pop(GRAPH, None)
    own = {CATALOG[name].output: b"OUTPUT", name: b"NAME"}
    for word, replacement in own.items():
        files = {path: data.replace(word.encode(), replacement) for path, data in files.items()}
    return files


def test_reference_distinguishes_the_test_pictures() -> None:
    assert len({tuple(best.classes) for best in expected("resnet18_v1")}) > 1
