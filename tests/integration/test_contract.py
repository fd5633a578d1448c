"""The contract of a classifier's ensemble, apart from correct predictions."""

import base64
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from client import SAMPLE, Classifier, InvalidImage, InvalidRequest, Prediction
from scripts.embedded import EmbeddedServer
from scripts.repository.catalog import CATALOG
from tests import images
from tests.graphs import CLASSES
from tests.integration.conftest import url


@pytest.fixture
def triton(server: EmbeddedServer) -> tritonclient.grpc.InferenceServerClient:
    return tritonclient.grpc.InferenceServerClient(url(server, "grpc").removeprefix("grpc://"))


def infer(triton: Any, model: str, name: str, array: np.ndarray[Any, Any]) -> Any:
    datatype = "BYTES" if array.dtype == np.object_ else "FP32"
    tensor = tritonclient.grpc.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return triton.infer(model, [tensor])


@pytest.mark.parametrize("name", CATALOG)
def test_inputs_and_outputs_have_the_documented_names_types_and_shapes(
    triton: tritonclient.grpc.InferenceServerClient, name: str
) -> None:
    about = triton.get_model_metadata(name, as_json=True)
    tensors = {
        tensor["name"]: (tensor["datatype"], tensor["shape"])
        for tensor in about["inputs"] + about["outputs"]
    }
    assert tensors == {
        "IMAGE": ("BYTES", ["-1", "1"]),
        "CLASS_ID": ("INT32", ["-1", "-1"]),
        "PROBABILITY": ("FP32", ["-1", "-1"]),
        "LABEL": ("BYTES", ["-1", "-1"]),
    }


@pytest.mark.parametrize("name", CATALOG)
def test_onnx_model_keeps_its_tensor_names_and_accepts_larger_images(
    triton: tritonclient.grpc.InferenceServerClient, name: str
) -> None:
    larger = np.random.default_rng(0).standard_normal((2, 3, 256, 288)).astype(np.float32)
    result = infer(triton, f"{name}_onnx", "data", larger)
    assert result.as_numpy(CATALOG[name].output).shape == (2, 1000)


def test_steps_can_be_called_directly(
    triton: tritonclient.grpc.InferenceServerClient,
) -> None:
    files = np.array([[images.encode(images.photo())]] * 32, np.object_)
    for _ in range(4):  # more images than the credit limit
        decoded = infer(triton, "imagenet_preprocess_256", "IMAGE", files)
        assert decoded.as_numpy("PIXELS").shape == (32, 224, 224, 3)
        assert decoded.as_numpy("CREDIT") is None
    scores = np.eye(3, 1000, dtype=np.float32)
    best = infer(triton, "imagenet_postprocess", "SCORES", scores)
    assert best.as_numpy("CLASS_ID")[:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("file_format", images.FORMATS)
def test_every_supported_format_is_classified(birds: Classifier, file_format: str) -> None:
    data = images.encode(images.photo(), file_format)
    assert len(birds.image(data).predictions) == 5


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "LA", "RGBA"])
def test_every_supported_mode_is_classified(birds: Classifier, mode: str) -> None:
    data = images.encode(images.photo(mode=mode), "JPEG" if mode == "CMYK" else "PNG")
    assert len(birds.image(data).predictions) == 5


def test_exif_orientation_does_not_change_the_class(server: EmbeddedServer, protocol: str) -> None:
    photo = images.photo()
    exif = photo.getexif()
    exif[0x0112] = 6
    turned = photo.rotate(90, expand=True)
    with Classifier(url(server, protocol), model="resnet18_v1") as classifier:
        upright = classifier.image(images.encode(photo)).top
        with_exif = classifier.image(images.encode(turned, exif=exif)).top
    assert upright.class_id == with_exif.class_id
    # The image is turned after it is resized, which rounds some pixels differently.
    assert upright.probability == pytest.approx(with_exif.probability, abs=0.05)


@pytest.mark.parametrize("top_k", [1, 3, CLASSES])
def test_top_k_may_be_1_to_the_number_of_classes(
    server: EmbeddedServer, protocol: str, top_k: int
) -> None:
    with Classifier(url(server, protocol), model="birds", top_k=top_k) as classifier:
        predictions = classifier.image(SAMPLE).predictions
    probabilities = [each.probability for each in predictions]
    assert len(predictions) == top_k
    assert probabilities == sorted(probabilities, reverse=True)
    assert predictions[0].label == f"class {predictions[0].class_id}"
    assert top_k < CLASSES or sum(probabilities) == pytest.approx(1)


def test_softmax_is_not_applied_to_a_graph_that_has_one(
    server: EmbeddedServer, protocol: str, birds: Classifier
) -> None:
    with Classifier(url(server, protocol), model="birds_softmax") as softmaxed:
        with_softmax, with_logits = (each.image(SAMPLE).predictions for each in (softmaxed, birds))
    assert [each.label for each in with_softmax] == [each.label for each in with_logits]
    assert [each.probability for each in with_softmax] == pytest.approx(
        [each.probability for each in with_logits], abs=1e-6
    )


def test_without_top_k_the_server_returns_five_classes_or_all(
    server: EmbeddedServer, protocol: str, birds: Classifier
) -> None:
    assert len(birds.image(SAMPLE).predictions) == 5
    with Classifier(url(server, protocol), model="two_birds") as classifier:
        assert len(classifier.image(SAMPLE).predictions) == 2


@pytest.mark.parametrize("top_k", [0, -1, CLASSES + 1, "3", True])
def test_any_other_top_k_is_an_invalid_argument(
    server: EmbeddedServer, protocol: str, top_k: Any
) -> None:
    with (
        Classifier(url(server, protocol), model="birds", top_k=top_k) as classifier,
        pytest.raises(InvalidRequest, match="top_k must be a whole number from 1 to 10"),
    ):
        classifier.image(SAMPLE)


@pytest.mark.parametrize("data", images.BROKEN.values(), ids=images.BROKEN)
def test_broken_image_is_an_invalid_argument(birds: Classifier, data: bytes) -> None:
    with pytest.raises(InvalidImage) as caught:
        birds.image(data)
    assert "Traceback" not in str(caught.value)


def test_broken_image_in_a_batch_is_named(birds: Classifier, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(InvalidImage, match="not an image") as caught:
        birds.batch([SAMPLE, broken, SAMPLE])
    assert caught.value.source == str(broken)


def test_broken_image_fails_only_its_own_request(birds: Classifier) -> None:
    def outcome(number: int) -> str:
        try:
            birds.image(b"no image" if number % 3 == 0 else SAMPLE)
        except InvalidImage:
            return "rejected"
        return "classified"

    # With many requests at a time, Triton batches valid and broken images together.
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(outcome, range(90)))
    assert outcomes == ["rejected", "classified", "classified"] * 30


def base64_sample() -> str:
    return base64.b64encode(SAMPLE.read_bytes()).decode()


def post(server: EmbeddedServer, path: str, body: dict[str, Any]) -> requests.Response:
    """Send JSON without the binary tensor extension, as most HTTP clients do."""
    return requests.post(f"{url(server, 'http')}/v2/models/birds/{path}", json=body, timeout=30)


@pytest.fixture
def expected(birds: Classifier) -> list[Prediction]:
    return list(birds.image(SAMPLE).predictions)


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,"])
def test_json_carries_images_as_base64(
    server: EmbeddedServer, expected: list[Prediction], prefix: str
) -> None:
    data = [prefix + base64_sample()] * 3
    tensor = {"name": "IMAGE", "datatype": "BYTES", "shape": [3, 1], "data": data}
    response = post(server, "infer", {"inputs": [tensor], "parameters": {"top_k": 2}})
    outputs = {output["name"]: output for output in response.json()["outputs"]}
    assert outputs["LABEL"]["shape"] == [3, 2]
    assert outputs["LABEL"]["data"] == [each.label for each in expected[:2]] * 3
    assert outputs["CLASS_ID"]["data"] == [each.class_id for each in expected[:2]] * 3
    assert outputs["PROBABILITY"]["data"] == pytest.approx(
        [each.probability for each in expected[:2]] * 3
    )


@pytest.mark.parametrize("count", [1, 3])
def test_generate_returns_plain_json_with_labels(
    server: EmbeddedServer, expected: list[Prediction], count: int
) -> None:
    image: Any = base64_sample() if count == 1 else [base64_sample()] * count
    result = post(server, "generate", {"IMAGE": image, "top_k": 2}).json()
    assert result["LABEL"] == [each.label for each in expected[:2]] * count
    assert result["CLASS_ID"] == [each.class_id for each in expected[:2]] * count


def test_batch_may_mix_files_and_base64(birds: Classifier, expected: list[Prediction]) -> None:
    results = birds.batch([SAMPLE, base64_sample().encode(), SAMPLE.read_bytes()])
    assert [list(each.predictions) for each in results] == [expected] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/9j/4AAQ?", "IMAGE[1]: invalid base64: "),
        ("data:text/plain,hello", "IMAGE[1]: a data URL must start with data:image/"),
        ("hello", "IMAGE[1]: not an image (5 bytes); send JPEG, PNG, WEBP, BMP or GIF, in JSON"),
    ],
)
def test_invalid_base64_is_a_bad_request_that_names_the_element(
    server: EmbeddedServer, text: str, message: str
) -> None:
    response = post(server, "generate", {"IMAGE": [base64_sample(), text]})
    assert response.status_code == 400
    assert message in response.json()["error"]


def test_invalid_base64_fails_only_its_own_request(server: EmbeddedServer) -> None:
    def status(number: int) -> int:
        image = "/9j/?" if number % 3 == 0 else base64_sample()
        return post(server, "generate", {"IMAGE": image}).status_code

    # With many requests at a time, Triton batches valid and invalid images together.
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(status, range(60))) == [400, 200, 200] * 20


def test_batch_of_32_is_accepted_and_batch_of_33_is_rejected(birds: Classifier) -> None:
    assert len(birds.batch([SAMPLE] * 32)) == 32
    with pytest.raises(InvalidRequest, match="batch-size must be <= 32"):
        birds.batch([SAMPLE] * 33)


def test_tensor_with_the_wrong_shape_for_the_graph_is_rejected(
    triton: tritonclient.grpc.InferenceServerClient,
) -> None:
    with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
        infer(triton, "resnet18_v1_onnx", "data", np.zeros((1, 4, 224, 224), np.float32))


@pytest.mark.usefixtures("curl")
def test_curl_classifies_a_file(server: EmbeddedServer) -> None:
    command = ["curl", "--silent", "--show-error", "--data-binary", f"@{SAMPLE}"]
    header = ["--header", "Inference-Header-Content-Length: 0", "--output", "-"]
    address = f"{url(server, 'http')}/v2/models/resnet50_v1/infer"
    output = subprocess.run([*command, *header, address], capture_output=True, check=True).stdout
    assert b'"name":"LABEL"' in output
    assert len(re.findall(rb"n\d{8} ", output)) == 5
