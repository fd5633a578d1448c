"""More load than a server bears: what is too much is refused at once, the rest is answered."""

import re
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from client import Classifier, DeadlineExceeded, ServerUnavailable
from scripts.embedded import EmbeddedServer
from tests import images
from tests.integration.conftest import url

MANY = 300  # more than the queue of 64 and what is under way


@pytest.fixture(scope="module")
def picture() -> bytes:
    """One that takes a while to decode."""
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
    """What each of many requests that are sent at once ends in: its best class, or an error."""
    where = url(server, protocol)
    with Classifier(where, model=model, retries=retries, timeout=timeout) as classifier:
        results = classifier.stream([picture] * count, concurrency=count)
        return [each.error or each.top.class_id for each in results]


def test_what_the_queue_does_not_hold_is_refused_as_unavailable(
    server: EmbeddedServer, protocol: str, picture: bytes
) -> None:
    outcomes = flood(server, protocol, picture)
    refused = [each for each in outcomes if isinstance(each, ServerUnavailable)]
    answered = Counter(each for each in outcomes if isinstance(each, int))
    assert len(refused) + answered.total() == MANY
    assert len(answered) == 1
    assert answered.total() >= 64
    assert refused
    assert all("Exceeds maximum queue size" in str(each) for each in refused)


def test_a_client_that_tries_again_gets_every_answer(
    server: EmbeddedServer, protocol: str, picture: bytes
) -> None:
    assert len(set(flood(server, protocol, picture, retries=20))) == 1


def waiting(server: EmbeddedServer, model: str) -> int:
    """How many requests wait for a model, as Triton's metrics have it."""
    metrics = requests.get(f"http://localhost:{server.endpoints.metrics}/metrics", timeout=5).text
    (line,) = re.findall(rf"nv_inference_pending_request_count{{.*{model}.*}} (\d+)", metrics)
    return int(line)


def test_few_decoded_images_wait_for_a_graph_that_takes_long(
    server: EmbeddedServer, protocol: str
) -> None:
    small = images.encode(images.photo())
    with Classifier(url(server, protocol), model="resnet18_v1") as classifier:
        deque(classifier.stream([small] * 20), maxlen=0)  # which wait for nothing
    with ThreadPoolExecutor(1) as pool:
        outcomes = pool.submit(flood, server, protocol, small, model="resnet18_v1")
        seen = []
        while not outcomes.done():
            seen.append(waiting(server, "resnet18_v1_pixels"))
    # Two processes decode on this core. Eight images of each may be ahead, before it takes four.
    assert 8 < max(seen) <= 2 * (7 + 4)
    assert sum(isinstance(each, int) for each in outcomes.result()) >= 64


def test_requests_that_are_given_up_do_not_stop_those_that_come_later(
    server: EmbeddedServer, protocol: str
) -> None:
    small = images.encode(images.photo())
    # As many as the queue holds: Triton 2.51 ends with a segmentation fault when it is to refuse a
    # gRPC request whose client gives up, https://github.com/triton-inference-server/server/issues/7368
    outcomes = flood(server, protocol, small, model="resnet18_v1", count=60, timeout=0.5)
    assert any(isinstance(each, DeadlineExceeded) for each in outcomes)
    with Classifier(url(server, protocol), model="resnet18_v1", timeout=10) as classifier:
        assert len({classifier.image(small).top.class_id for _ in range(50)}) == 1
