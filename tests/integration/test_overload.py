"""Admission control: excess load is rejected immediately, the rest is classified."""

import re
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
import tritonclient.grpc

from client import Classifier, DeadlineExceeded, ServerUnavailable
from scripts.embedded import EmbeddedServer, Endpoints
from tests import images
from tests.graphs import Array
from tests.integration.conftest import HASTE, url

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
    assert len(set(flood(server, protocol, picture, count=MANY // 2, retries=20))) == 1


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


TURNS = 16
# A change of one step's copy in a repository, after which no credit can return.
UNREACHABLE = {
    "the worker cannot create its pipe": ("preprocess", "missing/triton-credits-{}"),
    "postprocessing cannot find the pipe": ("postprocess", "elsewhere-{}"),
}


def images_per_second(server: EmbeddedServer) -> float:
    small = images.encode(images.photo())
    with Classifier(url(server, "grpc"), model="birds") as classifier:
        start = time.monotonic()
        assert all(not each.error for each in classifier.stream([small] * 150, concurrency=16))
        return 150 / (time.monotonic() - start)


@pytest.fixture(scope="module")
def reachable(small_repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(small_repository, endpoints=Endpoints.free(), arguments=HASTE) as server:
        yield server


@pytest.mark.parametrize(("step", "pipe"), UNREACHABLE.values(), ids=UNREACHABLE)
def test_credits_that_cannot_return_cost_no_throughput_and_are_reported(
    reachable: EmbeddedServer, small_repository: Path, tmp_path: Path, step: str, pipe: str
) -> None:
    repository = tmp_path / "model_repository"
    shutil.copytree(small_repository, repository)
    module = repository / f"birds_{step}" / "1" / "credits.py"
    module.write_text(module.read_text().replace("triton-credits-{}", pipe))
    log = tmp_path / "log"
    with EmbeddedServer(
        repository, endpoints=Endpoints.free(), log=log, arguments=HASTE
    ) as unreachable:
        images_per_second(unreachable)  # a worker waits once, for the first credits to return
        with_credits, without = [], []
        for _ in range(TURNS):  # other work on the machine slows down single turns
            with_credits.append(images_per_second(reachable))
            without.append(images_per_second(unreachable))
            if len(without) > 1 and max(without) > 0.9 * max(with_credits):
                break
    assert max(without) > 0.9 * max(with_credits)
    # Once in each of the three decoding processes.
    assert 1 <= log.read_text().count("decoding is not limited") <= 3


def test_forged_credits_change_nothing(reachable: EmbeddedServer) -> None:
    picture = np.array([[images.encode(images.photo())]], np.object_)
    scores = np.eye(1, 10, dtype=np.float32)
    with tritonclient.grpc.InferenceServerClient(url(reachable, "grpc")[7:]) as client:

        def infer(model: str, **tensors: Array) -> tritonclient.grpc.InferResult:
            inputs = []
            for name, array in tensors.items():
                kind = {"O": "BYTES", "f": "FP32", "i": "INT64"}[array.dtype.kind]
                inputs.append(tritonclient.grpc.InferInput(name, array.shape, kind))
                inputs[-1].set_data_from_numpy(array)
            return client.infer(model, inputs)

        for number in range(100):
            # These credits are lost.
            credit = infer("birds_preprocess", ENSEMBLE_IMAGE=picture).as_numpy("CREDIT")
            for forged in (credit ^ [[0, 1]], credit ^ [[1, 0]], np.array([[number, -1]])):
                result = infer("birds_postprocess", SCORES=scores, CREDIT=forged)
                assert result.as_numpy("CLASS_ID")[0, 0] == 0
    with Classifier(url(reachable, "grpc"), model="birds", timeout=5) as classifier:
        assert len({classifier.image(picture[0, 0]).top.class_id for _ in range(50)}) == 1
