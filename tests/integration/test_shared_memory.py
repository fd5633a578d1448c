"""Images in system shared memory: the same results, and no regions left."""

import asyncio
import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from client import SAMPLE, AsyncClassifier, Classifier, ImageFile, InvalidImage
from scripts.embedded import Access, EmbeddedServer, Endpoints
from tests import images, namespaces
from tests.conftest import ROOT
from tests.integration.conftest import ADMIN, ADMIN_KEY, HASTE, PROTOCOLS, url
from tests.shared_memory import files

JPEG = SAMPLE.read_bytes()
BMP = images.encode(images.photo(1024, 768), "BMP")
SHARING: dict[str, Any] = {"model": "birds", "shared_memory": True, "headers": ADMIN}


@pytest.fixture
def server(keyed: EmbeddedServer) -> EmbeddedServer:
    """Use a server that accepts shared memory from holders of the key."""
    return keyed


def regions(server: EmbeddedServer) -> set[str]:
    """Return the names of the regions registered with the server."""
    address = f"{url(server, 'http')}/v2/systemsharedmemory/status"
    status = requests.get(address, headers=ADMIN, timeout=5)
    return {region["name"] for region in status.json()}


@pytest.fixture(autouse=True)
def no_region_is_left(server: EmbeddedServer) -> Iterator[None]:
    """Assert that no file and no registration remains after a test."""
    before = files()
    yield
    assert files() <= before
    assert regions(server) == set()


@pytest.fixture
def sharing(server: EmbeddedServer, protocol: str) -> Iterator[Classifier]:
    with Classifier(url(server, protocol), **SHARING) as classifier:
        yield classifier


def test_results_are_the_same_as_without_shared_memory(
    birds: Classifier, sharing: Classifier
) -> None:
    sources = [JPEG, BMP, JPEG, images.encode(images.noise(300, 200, seed=1))]
    ours, theirs = (
        [result.predictions for result in each.stream(sources * 5, batch_size=3, concurrency=4)]
        for each in (sharing, birds)
    )
    assert ours == theirs


def test_a_stream_reuses_a_few_regions(server: EmbeddedServer, sharing: Classifier) -> None:
    for count, _ in enumerate(sharing.stream(itertools.islice(mixed(), 60), concurrency=4)):
        assert count or 1 <= len(regions(server)) <= 4
    assert 1 <= len(regions(server)) <= 4
    assert regions(server) == files()


def mixed() -> Iterator[ImageFile]:
    for number in itertools.count():
        yield ImageFile(str(number), BMP if number % 3 == 0 else JPEG)


def test_the_region_of_an_invalid_image_is_reused(
    server: EmbeddedServer, sharing: Classifier
) -> None:
    for _ in range(5):
        with pytest.raises(InvalidImage):
            sharing.image(b"no image")
    results = list(sharing.stream([JPEG, b"no image"] * 5, batch_size=4))
    assert [bool(result.error) for result in results] == [False, True] * 5
    assert len(regions(server)) <= 8


def test_a_closed_stream_releases_its_regions(sharing: Classifier) -> None:
    stream = sharing.stream(itertools.repeat(JPEG))
    next(stream)
    stream.close()  # type: ignore[attr-defined]


def test_cancelled_tasks_release_their_regions(server: EmbeddedServer, protocol: str) -> None:
    async def classify() -> None:
        address = url(server, protocol)
        async with AsyncClassifier(address, **SHARING) as classifier:
            for delay in (0.0, 0.001, 0.004, 0.01):
                tasks = [asyncio.create_task(classifier.image(BMP)) for _ in range(6)]
                await asyncio.sleep(delay)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            assert (await classifier.image(JPEG)).top

    asyncio.run(classify())


def test_regions_are_registered_again_after_a_restart(small_repository: Path) -> None:
    at, access = Endpoints.free(), Access(admin_key=ADMIN_KEY)
    options: dict[str, Any] = {"endpoints": at, "access": access, "arguments": HASTE}
    with EmbeddedServer(small_repository, **options) as server:
        classifiers = [Classifier(url(server, protocol), **SHARING) for protocol in PROTOCOLS]
        expected = [classifier.image(JPEG).predictions for classifier in classifiers]
    with EmbeddedServer(small_repository, **options) as server:
        for classifier, predictions in zip(classifiers, expected, strict=True):
            assert classifier.image(JPEG).predictions == predictions
            classifier.close()
        assert regions(server) == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_client_leaves_no_file_and_the_next_one_cleans_up(
    server: EmbeddedServer, protocol: str, number: int
) -> None:
    code = (
        "import sys, itertools; from client import Classifier, SAMPLE\n"
        f"with Classifier(sys.argv[1], **{SHARING}) as classifier:\n"
        "    for result in classifier.stream(itertools.repeat(SAMPLE)):\n"
        "        print(result.top.label, flush=True)\n"
    )
    command = [sys.executable, "-c", code, url(server, protocol)]
    before = files()
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout
        process.stdout.readline()
        assert files() > before
        process.send_signal(number)
        process.communicate()  # its output stays open: only the signal ends it
    deadline = time.monotonic() + 10
    while files() != before:  # the resource tracker finishes later
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if number == signal.SIGINT:
        assert regions(server) == set()
    with Classifier(url(server, protocol), **SHARING) as classifier:
        classifier.image(JPEG)
        assert len(regions(server)) == 1


def output_with_other_memory(server: EmbeddedServer, protocol: str, mount: str, source: str) -> str:
    """Run a client with another /dev/shm and return the error that it prints."""
    code = (
        "import sys; from client import *\n"
        f"with Classifier(sys.argv[1], **{SHARING}) as classifier:\n"
        f"    try: classifier.image({source})\n"
        "    except InvalidRequest as error: print(error)\n"
    )
    command = namespaces.inside(
        f"mount -t tmpfs {mount} none /dev/shm", sys.executable, "-c", code, url(server, protocol)
    )
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert output.stderr == ""
    return output.stdout


def test_too_little_shared_memory_is_an_error_and_not_a_crash(
    server: EmbeddedServer, protocol: str
) -> None:
    output = output_with_other_memory(server, protocol, "-o size=1m", "bytes(10_000_000)")
    assert output.startswith("/dev/shm has no room for")


def test_a_server_that_cannot_open_the_region_is_a_clear_error(
    server: EmbeddedServer, protocol: str
) -> None:
    # As on another machine or in another container.
    output = output_with_other_memory(server, protocol, "", "SAMPLE")
    assert "shared memory needs a client on the server's machine" in output
