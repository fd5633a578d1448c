"""More load than a server bears: what is too much is refused at once, the rest is answered."""

import os
from collections import Counter

import pytest

from client import Classifier, ServerUnavailable
from scripts.embedded import EmbeddedServer
from tests import images
from tests.integration.conftest import process_of, url

MANY = 300  # more than the queue of 64 and what is under way


@pytest.fixture(scope="module")
def picture() -> bytes:
    """One that takes a while to decode."""
    return images.encode(images.noise(900, 600, seed=3), "PNG", compress_level=1)


def flood(server: EmbeddedServer, protocol: str, picture: bytes, retries: int) -> list[object]:
    """What each of many requests that are sent at once ends in: its best class, or an error."""
    where = url(server, protocol)
    with Classifier(where, model="birds", retries=retries, timeout=60) as classifier:
        results = classifier.stream([picture] * MANY, concurrency=MANY)
        return [each.error or each.top.class_id for each in results]


def test_what_the_queue_does_not_hold_is_refused_as_unavailable(
    server: EmbeddedServer, protocol: str, picture: bytes
) -> None:
    outcomes = flood(server, protocol, picture, retries=0)
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


def test_only_the_thread_for_full_batches_stands_back(
    server: EmbeddedServer, picture: bytes
) -> None:
    flood(server, "grpc", picture, retries=0)
    decoding = next(
        child
        for child in process_of(server).children(recursive=True)
        if child.name().startswith("triton_python")
        and any("birds_preprocess/" in word for word in child.cmdline())
    )
    threads = [thread.id for thread in decoding.threads()]
    niceness = Counter(os.getpriority(os.PRIO_PROCESS, thread) for thread in threads)
    assert niceness[19] == 1
    assert niceness[0] == len(threads) - 1
