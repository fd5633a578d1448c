"""A user's own classifiers with real weights: SqueezeNet and EfficientNet-Lite0."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc

from client import Classifier
from scripts import build_repository
from scripts.embedded import EmbeddedServer, Endpoints
from scripts.repository import builder, calibration, sources
from scripts.repository.steps.preprocess.recipe import DECODINGS
from scripts.repository.tuning import ENGINES, PRECISIONS, Tuning
from tests.descriptions import said
from tests.exports.rows import PHOTOGRAPHS, REAL_WEIGHTS
from tests.graphs import Array
from tests.integration.conftest import HASTE, url

OUTPUT = "squeezenet0_flatten0_reshape0"
EFFICIENTNET = "efficientnet_lite0"
PHOTOS = ("chelsea.jpg", "coffee.jpg", "rocket.jpg")
FP16_DIFFERENCE = 0.01  # of a probability; 0.006 is the most for 1,000 photographs


@pytest.fixture(scope="module")
def efficientnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """Build it twice from its folder, with nothing told, for both ways of decoding."""
    if not (REAL_WEIGHTS / EFFICIENTNET).is_dir():
        pytest.skip("no EfficientNet-Lite0: make it with tests.exports.make --real-weights")
    output = tmp_path_factory.mktemp("efficientnet") / "model_repository"
    for decoding in DECODINGS:
        options = ["--onnx", str(REAL_WEIGHTS / EFFICIENTNET), "--name", decoding]
        options += ["--decoding", decoding, "--cores", "1", "--output", str(output)]
        assert build_repository.main(options) == 0
    with EmbeddedServer(
        output, models=DECODINGS, endpoints=Endpoints.free(), arguments=HASTE
    ) as server:
        yield server


# SqueezeNet with each engine in each precision that it has.
SQUEEZENETS = {
    f"{engine}_{precision}": (engine, precision)
    for engine, precision in itertools.product(ENGINES, PRECISIONS)
    if (engine, precision) != ("onnxruntime", "bf16")
}


@pytest.fixture(scope="module")
def squeezenet(
    shared_assets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    output = tmp_path_factory.mktemp("own") / "model_repository"
    images = calibration.read(shared_assets / "photos")
    for name, (engine, precision) in SQUEEZENETS.items():
        source = sources.from_file(shared_assets / "squeezenet1.1.onnx", name, said())
        tuning = Tuning(cores=1, engine=engine)
        builder.add(output, source, tuning=tuning, precision=precision, images=images)
    with EmbeddedServer(output, endpoints=Endpoints.free(), arguments=HASTE) as server:
        yield server


def infer(server: EmbeddedServer, model: str, array: Array) -> Array:
    tensor = tritonclient.grpc.InferInput("data", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    address = url(server, "grpc").removeprefix("grpc://")
    with tritonclient.grpc.InferenceServerClient(address) as triton:
        logits: Array = triton.infer(model, [tensor]).as_numpy(OUTPUT)
    return logits


def assert_correct(
    server: EmbeddedServer, protocol: str, photo: Path, model: str = "squeezenet"
) -> None:
    """Assert that the top-1 class of a photograph is one of its correct classes."""
    correct = json.loads(photo.with_name("labels.json").read_text())[photo.name]
    with Classifier(url(server, protocol), model=model) as classifier:
        top = classifier.image(photo).top
    assert top.label.split()[0] in correct


@pytest.mark.parametrize("name", SQUEEZENETS)
@pytest.mark.parametrize("photo", PHOTOS)
def test_it_classifies_the_photographs_correctly(
    squeezenet: EmbeddedServer, protocol: str, shared_assets: Path, photo: str, name: str
) -> None:
    assert_correct(squeezenet, protocol, shared_assets / "photos" / photo, name)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("photo", PHOTOS)
def test_fp16_gives_the_classes_of_fp32(
    squeezenet: EmbeddedServer, protocol: str, shared_assets: Path, photo: str, engine: str
) -> None:
    file = shared_assets / "photos" / photo
    answers = []
    for precision in ("fp32", "fp16"):
        name = f"{engine}_{precision}"
        with Classifier(url(squeezenet, protocol), model=name) as classifier:
            answers.append(classifier.image(file).predictions)
    expected, actual = answers
    assert [each.class_id for each in actual] == [each.class_id for each in expected]
    np.testing.assert_allclose(
        [each.probability for each in actual],
        [each.probability for each in expected],
        atol=FP16_DIFFERENCE,
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("number", range(3))
def test_its_fp16_graph_takes_and_gives_fp32(
    squeezenet: EmbeddedServer, shared_assets: Path, number: int, engine: str
) -> None:
    golden = np.load(shared_assets / "squeezenet1.1-golden.npz")
    logits = infer(squeezenet, f"{engine}_fp16_onnx", golden[f"input_{number}"])
    expected = golden[f"output_{number}"]
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=0.01 * expected.std())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("number", range(3))
def test_its_graph_reproduces_the_golden_logits(
    squeezenet: EmbeddedServer, shared_assets: Path, number: int, engine: str
) -> None:
    golden = np.load(shared_assets / "squeezenet1.1-golden.npz")
    logits = infer(squeezenet, f"{engine}_fp32_onnx", golden[f"input_{number}"])
    np.testing.assert_allclose(logits, golden[f"output_{number}"], atol=2e-4)


@pytest.mark.parametrize("decoding", DECODINGS)
@pytest.mark.parametrize("photo", PHOTOS)
def test_efficientnet_classifies_the_photographs_correctly(
    efficientnet: EmbeddedServer, protocol: str, shared_assets: Path, photo: str, decoding: str
) -> None:
    assert_correct(efficientnet, protocol, shared_assets / "photos" / photo, decoding)


@pytest.mark.parametrize("photo", PHOTOGRAPHS, ids=lambda photo: photo.name)
def test_efficientnet_answers_as_torch_does(
    efficientnet: EmbeddedServer, protocol: str, photo: Path
) -> None:
    answers = json.loads((REAL_WEIGHTS / f"{EFFICIENTNET}.json").read_text())
    with Classifier(url(efficientnet, protocol), model="exact") as classifier:
        served = classifier.image(photo).predictions
    assert [each.class_id for each in served] == answers[photo.name]["ids"]
    probabilities = [each.probability for each in served]
    np.testing.assert_allclose(probabilities, answers[photo.name]["probabilities"], atol=1e-4)
