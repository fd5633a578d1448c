"""Classifiers that are adapted from networks with trained weights, served by a real Triton."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from client import Classifier
from scripts import adapt, build_repository
from scripts.adaptation import copies
from scripts.adaptation.examples import Examples
from scripts.adaptation.process import Settings, run_trial
from scripts.embedded import EmbeddedServer, Endpoints
from scripts.evaluation.statistics import Share
from scripts.repository import sources
from tests import reference
from tests.exports.rows import REAL_WEIGHTS
from tests.integration.conftest import HASTE, url

Array = npt.NDArray[Any]

KINDS = ("checks", "discs", "noise", "stripes")
COUNT = 16  # pictures of each
SIDE = 240
EFFICIENTNET = REAL_WEIGHTS / "efficientnet_lite0"


def texture(kind: str, rng: np.random.Generator) -> Image.Image:
    """Draw a texture of random scale and direction in two random colours, which say nothing."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(16, 60)
    down, across = np.mgrid[:SIDE, :SIDE] * 2 * np.pi / period
    turned = across * np.cos(angle) + down * np.sin(angle)
    crossing = down * np.cos(angle) - across * np.sin(angle)
    mask = {
        "stripes": np.sin(turned) > 0,
        "checks": np.sin(turned) * np.sin(crossing) > 0,
        "discs": np.cos(turned) + np.cos(crossing) > 1,
        "noise": rng.random((SIDE, SIDE)) > 0.5,
    }[kind]
    colours = rng.integers(0, 256, (2, 3))
    pixels = colours[mask.astype(int)] + rng.integers(-15, 15, (SIDE, SIDE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Adapted:
    """A classifier of textures, and the network that it was made from."""

    name: str
    base: Path
    data: Path
    output: str

    @property
    def files(self) -> list[Path]:
        return sorted(self.data.rglob("*.png"))

    @property
    def labels(self) -> Array:
        return np.array([KINDS.index(file.parent.name) for file in self.files])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("textures")
    rng = np.random.default_rng(7)
    for kind in KINDS:
        (folder / kind).mkdir()
        for number in range(COUNT):
            texture(kind, rng).save(folder / kind / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapted") / "model_repository"


@pytest.fixture(scope="module", params=["squeezenet", "efficientnet"])
def adapted(
    request: pytest.FixtureRequest, shared_assets: Path, data: Path, repository: Path
) -> Adapted:
    """Adapt with the command, and build the file again with exact decoding as NAME_exact."""
    base = shared_assets / "squeezenet1.1.onnx"
    if request.param == "efficientnet":
        base = EFFICIENTNET
        if not base.is_dir():
            pytest.skip("no EfficientNet-Lite0: make it with tests.exports.make --real-weights")
    output = repository.parent / "out"
    options = ["--onnx", str(base), "--data", str(data), "--name", request.param]
    options += ["--held-out", "25", "--output", str(output), "--model-repository", str(repository)]
    assert adapt.main(options) == 0
    file = output / f"{request.param}.onnx"
    again = ["--onnx", str(file), "--name", f"{request.param}_exact", "--decoding", "exact"]
    assert build_repository.main([*again, "--cores", "1", "--output", str(repository)]) == 0
    facts = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    return Adapted(request.param, base, data, facts["triton_imagenet.adapted"])


@pytest.fixture(scope="module")
def server(adapted: Adapted, repository: Path) -> Iterator[EmbeddedServer]:
    models = [adapted.name, f"{adapted.name}_exact"]
    at = Endpoints.free()
    with EmbeddedServer(repository, models=models, endpoints=at, arguments=HASTE) as server:
        yield server


@pytest.fixture(scope="module")
def features(adapted: Adapted) -> Array:
    """Compute the features with Pillow, NumPy and the file of the network."""
    source = sources.from_file(adapted.base, adapted.name)
    model = onnx.ModelProto()
    model.CopyFrom(source.load().model)
    last = [node for node in model.graph.node if node.op_type in {"Gemm", "Conv"}][-1]
    del model.graph.output[:]
    model.graph.output.add(name=last.input[0])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    recipe = source.recipe
    mean, std = (np.array(each) for each in (recipe.mean, recipe.std))
    rows = []
    for file in adapted.files:
        levels = reference.picture(reference.opened(file.read_bytes()), recipe)
        image = ((levels / 255 - mean) / std).transpose(2, 0, 1).astype(np.float32)
        (found,) = session.run(None, {session.get_inputs()[0].name: image[None]})
        rows.append(found.mean(axis=(2, 3))[0] if found.ndim == 4 else found[0])
    return np.stack(rows)


def test_the_accuracy_is_far_above_chance(adapted: Adapted) -> None:
    said = json.loads(adapted.output)
    accuracy = Share(said["held_out_right"], said["held_out"])
    assert accuracy.total == len(KINDS) * COUNT // 4
    assert accuracy.low > 0.6
    assert said["images"] == len(KINDS) * COUNT


def test_the_accuracy_of_random_labels_is_that_of_chance(adapted: Adapted, features: Array) -> None:
    labels = np.random.default_rng(0).permutation(adapted.labels)
    names = tuple(str(file) for file in adapted.files)
    thumbnails = np.random.default_rng(0).integers(0, 256, (len(names), copies.SIDE**2), np.uint8)
    data = Examples(features.astype(np.float32), labels, names, thumbnails)
    trial = run_trial(data, KINDS, Settings(0.25, 0, 2), lambda *_: None)
    assert trial.accuracy.low < 1 / len(KINDS) < trial.accuracy.high


def test_the_served_predictions_are_those_of_scikit_learn(
    adapted: Adapted, features: Array, server: EmbeddedServer, protocol: str
) -> None:
    strength = json.loads(adapted.output)["inverse_penalty"]
    scaled = (features - features.mean(axis=0)) / features.std(axis=0).mean()
    model = LogisticRegression(C=strength, max_iter=2000).fit(scaled, adapted.labels)
    expected = model.predict_proba(scaled)
    for suffix, tolerance in (("_exact", 5e-3), ("", 0.05)):
        at = url(server, protocol)
        with Classifier(at, model=f"{adapted.name}{suffix}", top_k=len(KINDS)) as classifier:
            results = list(classifier.stream(adapted.files))
        served = np.zeros_like(expected)
        for row, result in zip(served, results, strict=True):
            for prediction in result.predictions:
                assert prediction.label == KINDS[prediction.class_id]
                row[prediction.class_id] = prediction.probability
        np.testing.assert_allclose(served, expected, atol=tolerance)
        assert (served.argmax(axis=1) == expected.argmax(axis=1)).all()
