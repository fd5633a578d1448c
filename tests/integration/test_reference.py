"""The reference beside the server: it agrees with what is served and with the tests' own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from client import Classifier
from scripts.embedded import EmbeddedServer, Endpoints
from scripts.evaluation.reference import open_reference
from scripts.repository import builder, sources
from scripts.repository.tuning import ENGINES, Tuning
from tests import images, reference
from tests.descriptions import said
from tests.integration.conftest import HASTE, url

Rows = npt.NDArray[np.float64]
PHOTOS = ("chelsea.jpg", "coffee.jpg", "rocket.jpg")


@pytest.fixture(scope="module")
def squeezenets(
    shared_assets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """SqueezeNet on both engines, exactly decoded, with one crop and with ten."""
    repository = tmp_path_factory.mktemp("reference") / "model_repository"
    file = shared_assets / "squeezenet1.1.onnx"
    for engine in ENGINES:
        source = sources.from_file(file, engine, said(decoding="exact"))
        builder.add(repository, source, tuning=Tuning(cores=1, engine=engine), crops=10)
    with EmbeddedServer(repository, endpoints=Endpoints.free(), arguments=HASTE) as server:
        yield server


def assert_agrees(
    classifier: Classifier, data: bytes, row: Rows, *, difference: float = 1e-5
) -> None:
    """Compare the served top-5 with the probabilities of all classes."""
    served = classifier.image(data).predictions
    top = np.argsort(-row, kind="stable")[: len(served)]
    assert [each.class_id for each in served] == top.tolist()
    np.testing.assert_allclose([each.probability for each in served], row[top], atol=difference)


def test_it_agrees_with_fast_decoding(small_server: EmbeddedServer, protocol: str) -> None:
    repository = small_server.repository
    opened = open_reference("birds", repository, repository.parent / "birds.onnx")
    with Classifier(url(small_server, protocol), model="birds") as birds:
        for data in images.mixed_sizes():
            assert_agrees(birds, data, opened.probabilities(data), difference=1e-3)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("photo", PHOTOS)
def test_it_agrees_with_real_weights(
    squeezenets: EmbeddedServer, shared_assets: Path, engine: str, photo: str
) -> None:
    file = shared_assets / "squeezenet1.1.onnx"
    data = (shared_assets / "photos" / photo).read_bytes()
    row = open_reference(engine, squeezenets.repository, file).probabilities(data)
    with Classifier(url(squeezenets, "grpc"), model=engine) as squeezenet:
        assert_agrees(squeezenet, data, row)
    session = onnxruntime.InferenceSession(file)
    best = reference.best(reference.logits(session, [reference.pixels(data)])[0], 5)
    assert np.argsort(-row, kind="stable")[:5].tolist() == best.classes
    np.testing.assert_allclose(row[best.classes], best.probabilities, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_it_agrees_with_ten_crops(
    squeezenets: EmbeddedServer, shared_assets: Path, engine: str
) -> None:
    name, file = f"{engine}_10crop", shared_assets / "squeezenet1.1.onnx"
    data = (shared_assets / "photos" / "coffee.jpg").read_bytes()
    row = open_reference(name, squeezenets.repository, file).probabilities(data)
    with Classifier(url(squeezenets, "grpc"), model=name) as squeezenet:
        assert_agrees(squeezenet, data, row)
