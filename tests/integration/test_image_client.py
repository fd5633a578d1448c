"""Triton's own example clients, unmodified, and what they need of a model.

The examples are part of https://github.com/triton-inference-server/client, in src/python/examples.
"""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image
from tritonclient.grpc import model_config_pb2 as pb

from client import SAMPLE, Classifier
from scripts.embedded import EmbeddedServer, Endpoints
from scripts.repository import builder, sources
from scripts.repository.catalog import CATALOG
from scripts.repository.ensemble import IMAGENET_LABELS
from tests.graphs import CLASSES, classifier
from tests.integration.conftest import HASTE, url
from tests.integration.test_serve import ports, serve, wait_until_ready

EXAMPLES = "TRITON_CLIENT_EXAMPLES"
MODEL = "resnet18_v1"
TOP = 3
BILINEAR = Image.Resampling.BILINEAR
RESULT = re.compile(r" +(?P<score>\S+) \((?P<index>\d+)\) = (?P<label>.+)")

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Called:
    """A model that takes the sample photograph as a tensor, and the labels of its classes."""

    name: str
    input: str
    output: str
    image: Array
    labels: tuple[str, ...]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One classifier of the zoo, and one whose graph takes only 32 x 32 pixels."""
    folder = tmp_path_factory.mktemp("image_client")
    dense = np.random.default_rng(0).standard_normal((3 * 32 * 32, CLASSES)).astype(np.float32)
    body = "flat = Flatten(image) scores = MatMul(flat, dense)"
    onnx.save(classifier(body, initializers={"dense": dense}), folder / "fixed.onnx")
    repository = folder / "model_repository"
    builder.add(repository, sources.from_seed(CATALOG[MODEL]))
    builder.add(repository, sources.from_file(folder / "fixed.onnx", "fixed"))
    with EmbeddedServer(repository, endpoints=Endpoints.free(), arguments=HASTE) as server:
        yield server


def photo(size: int) -> Array:
    """The sample resized as image_client.py does it: UINT8 [size, size, 3]."""
    return np.asarray(Image.open(SAMPLE).convert("RGB").resize((size, size), BILINEAR))


def called(role: str) -> Called:
    pixels, output = photo(224), CATALOG[MODEL].output
    if role == "pixels":
        return Called(f"{MODEL}_pixels", "PIXELS", output, pixels, IMAGENET_LABELS)
    tensor = pixels.transpose(2, 0, 1).astype(np.float32)
    return Called(f"{MODEL}_onnx", "data", output, tensor, IMAGENET_LABELS)


@pytest.fixture(params=["pixels", "onnx"])
def model(request: pytest.FixtureRequest) -> Called:
    return called(request.param)


def address(server: EmbeddedServer, protocol: str) -> str:
    return url(server, protocol).removeprefix(f"{protocol}://")


def infer(server: EmbeddedServer, protocol: str, model: Called, class_count: int) -> Array:
    """Send two copies of the photograph; 0 requests the scores instead of classes."""
    triton: Any = tritonclient.grpc if protocol == "grpc" else tritonclient.http
    batch = np.stack([model.image] * 2)
    datatype = "UINT8" if batch.dtype == np.uint8 else "FP32"
    tensor = triton.InferInput(model.input, list(batch.shape), datatype)
    tensor.set_data_from_numpy(batch)
    output = triton.InferRequestedOutput(model.output, class_count=class_count)
    with triton.InferenceServerClient(address(server, protocol)) as client:
        result = client.infer(model.name, [tensor], outputs=[output])
        return np.asarray(result.as_numpy(model.output))


def best(server: EmbeddedServer, model: Called) -> list[tuple[float, int, str]]:
    """The best classes by the scores: score, index and label."""
    scores = infer(server, "grpc", model, class_count=0)[0]
    return [(scores[index], index, model.labels[index]) for index in (-scores).argsort()[:TOP]]


def assert_best(found: list[tuple[str, ...]], expected: list[tuple[float, int, str]]) -> None:
    assert [(int(index), label) for _, index, label in found] == [each[1:] for each in expected]
    scores = [float(score) for score, _, _ in found]
    assert scores == pytest.approx([each[0] for each in expected], rel=1e-4)


def test_the_classification_extension_returns_labels(
    server: EmbeddedServer, protocol: str, model: Called
) -> None:
    expected = best(server, model)
    result = infer(server, protocol, model, class_count=TOP)
    assert result.shape == (2, TOP)
    for row in result:
        assert_best([tuple(element.decode().split(":", 2)) for element in row], expected)


def test_models_declare_what_image_client_checks(server: EmbeddedServer, model: Called) -> None:
    with tritonclient.grpc.InferenceServerClient(address(server, "grpc")) as client:
        metadata = client.get_model_metadata(model.name)
        config = client.get_model_config(model.name).config
    assert len(metadata.inputs) == len(config.input) == len(metadata.outputs) == 1
    assert len(metadata.inputs[0].shape) == 4
    assert (metadata.outputs[0].datatype, config.max_batch_size) == ("FP32", 32)
    channels_last = model.input == "PIXELS"
    expected = pb.ModelInput.FORMAT_NHWC if channels_last else pb.ModelInput.FORMAT_NCHW
    assert config.input[0].format == expected
    assert config.output[0].label_filename


@pytest.fixture(scope="session")
def examples() -> Path:
    if not (folder := os.environ.get(EXAMPLES)):
        pytest.skip(f"set {EXAMPLES} to src/python/examples of Triton's client repository")
    return Path(folder)


def execute(
    script: Path, model: str, server: str, *options: str
) -> "subprocess.CompletedProcess[str]":
    arguments = ["-m", model, "-u", server, "-c", str(TOP), *options, str(SAMPLE)]
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def run(script: Path, model: str, server: str, *options: str) -> list[tuple[str, ...]]:
    """Run an example on the sample and return the classes that it prints."""
    result = execute(script, model, server, *options)
    assert result.returncode == 0, result.stdout + result.stderr
    return [match.groups() for match in map(RESULT.fullmatch, result.stdout.splitlines()) if match]


@pytest.mark.parametrize(
    "options",
    [
        ["-i", "HTTP"],
        ["-i", "HTTP", "-b", "4"],
        ["-i", "HTTP", "--async"],
        ["-i", "gRPC"],
        ["-i", "gRPC", "-b", "4"],
        ["-i", "gRPC", "--async"],
        ["-i", "gRPC", "--streaming"],
        ["-i", "gRPC", "--streaming", "-b", "4"],
    ],
    ids=" ".join,
)
def test_image_client_classifies(
    server: EmbeddedServer, examples: Path, options: list[str]
) -> None:
    protocol = options[1].lower()
    if protocol == "http" and not importlib.util.find_spec("attrdict"):
        pytest.skip("image_client.py needs attrdict over HTTP: pip install attrdict")
    model = called("pixels")
    found = run(examples / "image_client.py", model.name, address(server, protocol), *options)
    batch = 4 if "-b" in options else 1
    assert len(found) == batch * TOP
    for start in range(0, len(found), TOP):
        assert_best(found[start : start + TOP], best(server, model))


@pytest.mark.parametrize("batch", [1, 4])
def test_grpc_image_client_classifies(server: EmbeddedServer, examples: Path, batch: int) -> None:
    script, model = examples / "grpc_image_client.py", called("pixels")
    found = run(script, model.name, address(server, "grpc"), "-b", str(batch))
    assert len(found) == batch * TOP
    assert_best(found[-TOP:], best(server, model))


@pytest.mark.parametrize("script", ["image_client.py", "grpc_image_client.py"])
def test_examples_classify_with_original_tensors_of_a_fixed_size(
    server: EmbeddedServer, examples: Path, script: str
) -> None:
    options = ["-i", "gRPC"] if script == "image_client.py" else []
    tensor = photo(32).transpose(2, 0, 1).astype(np.float32)
    labels = tuple(f"class {number}" for number in range(CLASSES))
    model = Called("fixed_onnx", "image", "scores", tensor, labels)
    found = run(examples / script, model.name, address(server, "grpc"), *options)
    assert_best(found, best(server, model))


def test_ensemble_image_client_is_rejected_and_the_server_stays_available(
    small_repository: Path, examples: Path, protocol: str
) -> None:
    # It requests the `classification` extension for LABEL, a STRING, which ends Triton 2.51.
    endpoints = Endpoints.free()
    where = f"127.0.0.1:{endpoints.ports[protocol]}"
    with serve(small_repository, *ports(endpoints)) as process:
        wait_until_ready(process)
        result = execute(examples / "ensemble_image_client.py", "birds", where, "-i", protocol)
        assert result.returncode != 0
        assert "PASS" not in result.stdout
        with Classifier(f"{protocol}://{where}", model="birds", retries=20) as classifier:
            assert classifier.image(SAMPLE).predictions
