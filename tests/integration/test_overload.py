"""Admission control: excess load is rejected immediately, the rest is classified."""

import re
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from client import Classifier, DeadlineExceeded, ServerUnavailable
from scripts.embedded import EmbeddedServer
from tests import images
from tests.integration.conftest import url

MANY = 300  # more than the queue of 64 and the requests in flight


@pytest.fixture(scope="module")
def picture() -> bytes:
    """A picture that takes long to decode."""
    return images.encode(images.noise(900, 600, seed=3), "PNG", compress_level=1)


def flood(
    server: EmbeddedServer,
    protocol: str,
    picture: bytes,
    *,
    model: str = "birds",
    count: int = MANY,
    retries: int = 0,
    timeout: float = 60,
) -> list[object]:
    """Send many requests at once, and return the best class or the error of each."""
    address = url(server, protocol)
    with Classifier(address, model=model, retries=retries, timeout=timeout) as classifier:
        results = classifier.stream([picture] * count, concurrency=count)
        return [each.error or each.top.class_id for each in results]


def test_requests_beyond_the_queue_are_rejected_as_unavailable(
    server: EmbeddedServer, protocol: str, picture: bytes
) -> None:
    outcomes = flood(server, protocol, picture)
    rejected = [each for each in outcomes if isinstance(each, ServerUnavailable)]
    classified = Counter(each for each in outcomes if isinstance(each, int))
    assert len(rejected) + classified.total() == MANY
    assert len(classified) == 1
    assert classified.total() >= 64
    assert rejected
    assert all("Exceeds maximum queue size" in str(each) for each in rejected)


def test_client_with_retries_gets_every_result(
    server: EmbeddedServer, protocol: str, picture: bytes
) -> None:
    assert len(set(flood(server, protocol, picture, retries=20))) == 1


def waiting(server: EmbeddedServer, model: str) -> int:
    """Read from Triton's metrics how many requests wait for a model."""
    metrics = requests.get(f"http://localhost:{server.endpoints.metrics}/metrics", timeout=5).text
    (line,) = re.findall(rf"nv_inference_pending_request_count{{.*{model}.*}} (\d+)", metrics)
    return int(line)


def test_credits_limit_the_decoded_images_that_wait_for_a_slow_graph(
    server: EmbeddedServer, protocol: str
) -> None:
    small = images.encode(images.photo())
    with Classifier(url(server, protocol), model="resnet18_v1") as classifier:
        deque(classifier.stream([small] * 20), maxlen=0)  # without any load
    with ThreadPoolExecutor(1) as pool:
        outcomes = pool.submit(flood, server, protocol, small, model="resnet18_v1")
        counts = []
        while not outcomes.done():
            counts.append(waiting(server, "resnet18_v1_pixels"))
    # Two processes decode on one core. Each may be eight images ahead when it starts four more.
    assert 8 < max(counts) <= 2 * (7 + 4)
    assert sum(isinstance(each, int) for each in outcomes.result()) >= 64


def test_cancelled_requests_do_not_block_later_ones(server: EmbeddedServer, protocol: str) -> None:
    small = images.encode(images.photo())
    # Not more than the queue holds: Triton 2.51 ends with a segmentation fault if it rejects a gRPC
    # request that its client has cancelled, https://github.com/triton-inference-server/server/issues/7368
    outcomes = flood(server, protocol, small, model="resnet18_v1", count=60, timeout=0.5)
    assert any(isinstance(each, DeadlineExceeded) for each in outcomes)
    with Classifier(url(server, protocol), model="resnet18_v1", timeout=10) as classifier:
        assert len({classifier.image(small).top.class_id for _ in range(50)}) == 1
