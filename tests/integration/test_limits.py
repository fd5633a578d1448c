"""Documented limits: a request that exceeds one gets a clear error, over both protocols."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from client import SAMPLE
from scripts.embedded import EmbeddedServer
from tests.graphs import CLASSES, Array

JPEG = SAMPLE.read_bytes()
INVALID = {"grpc": "StatusCode.INVALID_ARGUMENT", "http": "400"}
UNAVAILABLE = {"grpc": "StatusCode.UNAVAILABLE", "http": "503"}
Ask = Callable[..., Array]


@pytest.fixture
def ask(small_server: EmbeddedServer, protocol: str) -> Iterator[Ask]:
    """Classify files; options are those of tritonclient's `infer`."""
    library = {"grpc": tritonclient.grpc, "http": tritonclient.http}[protocol]
    address = f"127.0.0.1:{small_server.endpoints.ports[protocol]}"
    with library.InferenceServerClient(address) as client:

        def ask(*files: bytes, **options: object) -> Array:
            tensor = library.InferInput("IMAGE", [len(files), 1], "BYTES")
            tensor.set_data_from_numpy(np.array(files, np.object_).reshape(-1, 1))
            array: Array = client.infer("birds", [tensor], **options).as_numpy("CLASS_ID")
            return array

        yield ask


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "expected 1 string elements for inference input 'IMAGE'"),
        ([b""], r"IMAGE\[0\]: not an image \(0 bytes\)"),
        ([JPEG, b""], r"IMAGE\[1\]: not an image \(0 bytes\)"),
        ([JPEG] * 33, "batch-size must be <= 32 for 'birds'"),
    ],
    ids=["no image", "an empty image", "a second image that is empty", "too many images"],
)
def test_each_request_has_from_1_to_32_images(
    ask: Ask, protocol: str, files: list[bytes], message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message) as refusal:
        ask(*files)
    assert refusal.value.status() == INVALID[protocol]


@pytest.mark.parametrize("top_k", [0, CLASSES + 1, 2**40])
def test_top_k_is_limited(ask: Ask, protocol: str, top_k: int) -> None:
    message = f"top_k must be a whole number from 1 to {CLASSES}, not {top_k}"
    with pytest.raises(InferenceServerException, match=message) as refusal:
        ask(JPEG, parameters={"top_k": top_k})
    assert refusal.value.status() == INVALID[protocol]


def test_a_request_can_limit_the_time_that_it_waits(ask: Ask, protocol: str) -> None:
    with pytest.raises(InferenceServerException, match="Request timeout expired") as refusal:
        ask(JPEG, timeout=1)  # microseconds
    assert refusal.value.status() == UNAVAILABLE[protocol]
    assert len(ask(JPEG, timeout=60_000_000)) == 1


def test_scores_cannot_be_left_out(small_server: EmbeddedServer) -> None:
    credit = {"name": "CREDIT", "shape": [1, 2], "datatype": "INT64", "data": [1, 2]}
    address = f"http://127.0.0.1:{small_server.endpoints.http}/v2/models/birds_postprocess/infer"
    answer = requests.post(address, json={"inputs": [credit]}, timeout=10)
    assert answer.status_code == 400
    assert answer.json() == {"error": "the request has no SCORES"}
