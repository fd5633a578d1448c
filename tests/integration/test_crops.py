"""Ten crops on a real server, and a zoo classifier at a larger size, compared with Pillow's."""

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import requests
from tritonclient.http import InferenceServerClient

from client import Classification, Classifier, InvalidImage, InvalidRequest, ServerUnavailable
from client.classify import main
from scripts import build_repository
from scripts.embedded import EmbeddedServer, Endpoints
from scripts.repository import builder, sources
from scripts.repository.catalog import CATALOG
from scripts.repository.steps.preprocess.recipe import Recipe, square
from scripts.repository.tuning import ENGINES, Tuning
from tests import images, reference
from tests.descriptions import said
from tests.graphs import SOFTMAXED, classifier, convolved
from tests.integration.conftest import HASTE, url
from tests.integration.test_overload import flood
from tests.unit.test_crops import five_crops

Probabilities = npt.NDArray[np.float64]
MOBILENET = CATALOG["mobilenetv2"]
LARGE = square(352, 320, decoding="exact")
BIRDS = square(48, 32, decoding="exact", interpolation="bicubic", rounding="torchvision")
GRAPHS = {
    **dict.fromkeys(ENGINES, convolved()),
    "softmaxed": classifier(SOFTMAXED),
}
QUEUE = 80  # images; a tenth of it with ten crops


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MobileNetV2 at 320 pixels, and small classifiers on both engines; each with ten crops."""
    folder = tmp_path_factory.mktemp("crops")
    output = folder / "model_repository"
    options = ["--models", MOBILENET.name, "--weights", "synthetic", "--decoding", "exact"]
    options += ["--resize", "352", "--crop", "320", "--crops", "10", "--cores", "1"]
    assert build_repository.main([*options, "--output", str(output)]) == 0
    fields = {name: getattr(BIRDS, name) for name in ("resize", "interpolation", "rounding")}
    fields |= {"decoding": "exact", "mean": BIRDS.mean, "std": BIRDS.std}
    for name, graph in GRAPHS.items():
        file = folder / f"{name}.onnx"
        onnx.save(graph, file)
        engine = name if name in ENGINES else "onnxruntime"
        tuning = Tuning(cores=1, engine=engine, queue=QUEUE)
        builder.add(output, sources.from_file(file, name, said(**fields)), tuning=tuning, crops=10)
    return output


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(repository, endpoints=Endpoints.free(), arguments=HASTE) as server:
        yield server


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return [images.encode(images.photo(451, 300)), images.encode(images.noise(240, 421, seed=1))]


def expected(data: bytes, recipe: Recipe, graph: onnx.ModelProto) -> dict[str, Probabilities]:
    """Compute the probabilities of the centre and of ten crops with Pillow and onnxruntime."""
    image = reference.opened(data)
    size = reference.resized(image.height, image.width, recipe)
    whole = reference.picture(image, replace(recipe, mode="squash", resize=size, crop=size))
    crops = [*five_crops(whole, recipe), *five_crops(whole[:, ::-1], recipe)]
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    rows = reference.logits(session, [reference.normalized(crop) for crop in crops])
    rows = rows.astype(np.float64)
    if graph is not GRAPHS["softmaxed"]:
        rows = np.exp(rows - rows.max(axis=1, keepdims=True))
        rows /= rows.sum(axis=1, keepdims=True)
    return {"": rows[4], "_10crop": rows.mean(axis=0)}


def assert_equal(result: Classification, probabilities: Probabilities) -> None:
    classes = [each.class_id for each in result.predictions]
    assert classes == np.argsort(-probabilities, kind="stable")[: len(classes)].tolist()
    served = [each.probability for each in result.predictions]
    np.testing.assert_allclose(served, probabilities[classes], atol=1e-4)


@pytest.mark.parametrize("name", GRAPHS)
def test_ten_crops_equal_the_mean_of_pillow_and_onnxruntime(
    server: EmbeddedServer, protocol: str, name: str, pictures: list[bytes]
) -> None:
    for data in pictures:
        for suffix, probabilities in expected(data, BIRDS, GRAPHS[name]).items():
            with Classifier(url(server, protocol), model=f"{name}{suffix}", top_k=10) as client:
                assert_equal(client.image(data), probabilities)


def test_ten_crops_and_one_differ(pictures: list[bytes]) -> None:
    one, ten = expected(pictures[0], BIRDS, GRAPHS["onnxruntime"]).values()
    assert np.abs(one - ten).max() > 1e-3


@pytest.fixture(scope="module")
def large(repository: Path, pictures: list[bytes]) -> dict[str, Probabilities]:
    """The probabilities of the classifier that takes 320 pixels."""
    graph = onnx.load(repository / f"{MOBILENET.name}_onnx" / "1" / "model.onnx")
    return expected(pictures[0], LARGE, graph)


def test_a_zoo_classifier_of_320_pixels_equals_the_reference(
    server: EmbeddedServer, protocol: str, pictures: list[bytes], large: dict[str, Probabilities]
) -> None:
    for suffix, probabilities in large.items():
        with Classifier(url(server, protocol), model=f"{MOBILENET.name}{suffix}") as client:
            assert_equal(client.image(pictures[0]), probabilities)


def test_many_images_at_once_get_their_own_answers(
    server: EmbeddedServer, protocol: str, pictures: list[bytes]
) -> None:
    wanted = [expected(data, BIRDS, GRAPHS["openvino"])["_10crop"] for data in pictures]
    with Classifier(url(server, protocol), model="openvino_10crop", top_k=10) as client:
        results = list(client.stream([pictures[0], b"no image", pictures[1]] * 8, concurrency=4))
    failed = [each.error for each in results]
    assert all(isinstance(each, InvalidImage) for each in failed[1::3])
    for first, second in zip(results[::3], results[2::3], strict=True):
        assert_equal(first, wanted[0])
        assert_equal(second, wanted[1])


def test_the_request_parameter_top_k_applies(
    server: EmbeddedServer, protocol: str, pictures: list[bytes]
) -> None:
    with Classifier(url(server, protocol), model="onnxruntime_10crop", top_k=3) as client:
        assert len(client.image(pictures[0]).predictions) == 3
    with (
        Classifier(url(server, protocol), model="onnxruntime_10crop", top_k=11) as client,
        pytest.raises(InvalidRequest, match="top_k must be a whole number from 1 to 10, not 11"),
    ):
        client.image(pictures[0])


def test_a_batch_is_refused_in_one_line(
    server: EmbeddedServer, protocol: str, pictures: list[bytes]
) -> None:
    with Classifier(url(server, protocol), model="onnxruntime_10crop") as client:
        message = r"^the model takes one image a request; use a batch size of 1$"
        with pytest.raises(InvalidRequest, match=message):
            client.batch(pictures)
        (alone,) = client.stream(pictures[:1], batch_size=8)
    assert alone.predictions


def test_excess_load_is_refused(
    server: EmbeddedServer, protocol: str, pictures: list[bytes]
) -> None:
    outcomes = flood(server, protocol, pictures[0], model="onnxruntime_10crop", count=100)
    refused = [each for each in outcomes if isinstance(each, ServerUnavailable)]
    assert refused
    assert all("Exceeds maximum queue size" in str(each) for each in refused)
    assert QUEUE // 10 <= sum(isinstance(each, int) for each in outcomes) == 100 - len(refused)


def post(server: EmbeddedServer, path: str, **content: Any) -> requests.Response:
    at = f"http://{server.endpoints.at('http')}/v2/models/onnxruntime_10crop/{path}"
    return requests.post(at, timeout=10, **content)


RAW = {"Inference-Header-Content-Length": "0"}


def test_every_form_of_a_request_gives_the_same_answer(
    server: EmbeddedServer, pictures: list[bytes]
) -> None:
    raw = post(server, "infer", data=pictures[0], headers=RAW)  # as curl --data-binary sends it
    length = int(raw.headers["Inference-Header-Content-Length"])
    result = InferenceServerClient.parse_response_body(raw.content, header_length=length)
    outputs = {name: result.as_numpy(name) for name in ("CLASS_ID", "PROBABILITY")}
    assert outputs["CLASS_ID"].shape == (1, 5)
    text = base64.b64encode(pictures[0]).decode()
    tensor = {"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "data": [text]}
    answer = post(server, "infer", json={"inputs": [tensor]}).json()
    answers = {output["name"]: output["data"] for output in answer["outputs"]}
    generated = post(server, "generate", json={"IMAGE": text}).json()
    for name, array in outputs.items():
        np.testing.assert_allclose(answers[name], array[0], rtol=1e-6)
        np.testing.assert_allclose(generated[name], array[0], rtol=1e-6)


def test_a_bad_image_and_a_batch_get_400(server: EmbeddedServer) -> None:
    bad = post(server, "infer", data=b"no image", headers=RAW)
    assert (bad.status_code, bad.json()["error"].partition("IMAGE[0]: ")[2]) == (
        400,
        "not an image (8 bytes); send JPEG, PNG, WEBP, BMP or GIF, in JSON as base64",
    )
    tensor = {"name": "IMAGE", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]}
    batch = post(server, "infer", json={"inputs": [tensor]})
    assert batch.status_code == 400
    assert "Expected [1,1], got [2,1]" in batch.json()["error"]


def test_ten_crops_are_listed(server: EmbeddedServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", url(server, "grpc"), "--list-models"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"1000 +352 / 320, exact, 10 crops +mobilenetv2_10crop +ready", table)
    assert re.search(r"10 +48 / 32, bicubic, exact, 10 crops +onnxruntime_10crop +ready", table)
    assert "preprocess" not in table
