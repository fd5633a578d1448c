"""Images that cost much to decode, sent to a real server by several clients at the same time."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from client import SAMPLE
from scripts.embedded import EmbeddedServer, Endpoints
from scripts.repository.steps.preprocess.limits import MIB
from scripts.repository.tuning import Tuning
from tests import bombs
from tests.integration.conftest import HASTE, process_of, url

CLIENTS = Tuning().preprocess_instances + 1  # all processes decode, and one image waits
MAX_MEMORY = 1024 * MIB
WORST = [
    "PNG, RGB, turned",
    "PNG, grey and alpha",
    "WebP, lossless",
    "BMP of run lengths",
    "JPEG, CMYK, wide",
    "JPEG, progressive",
]


@pytest.fixture(scope="module")
def idle_server(
    small_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    log = tmp_path_factory.mktemp("log") / "tritonserver.log"
    at = Endpoints.free()
    with EmbeddedServer(small_repository, endpoints=at, arguments=HASTE, log=log) as server:
        assert post(server, SAMPLE.read_bytes()) == (200, "")
        yield server


def post(server: EmbeddedServer, data: bytes) -> tuple[int, str]:
    """Send an image; return the status, and the message if it is an error."""
    request = urllib.request.Request(  # noqa: S310 - http only
        f"{url(server, 'http')}/v2/models/birds/infer",
        data,
        {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - http only
            response.read()
            return response.status, ""
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def memory(server: EmbeddedServer) -> int:
    """Return the resident bytes of all the server's processes that no other process shares."""
    process = process_of(server)
    usages = [each.memory_info() for each in (process, *process.children(recursive=True))]
    return sum(usage.rss - usage.shared for usage in usages)


def peak_while(server: EmbeddedServer, answers: list[Future[tuple[int, str]]]) -> int:
    peak = 0
    while not all(answer.done() for answer in answers):
        peak = max(peak, memory(server))
        time.sleep(0.005)
    return peak


@pytest.mark.parametrize("name", WORST)
def test_server_decodes_the_largest_images_within_the_budget(
    idle_server: EmbeddedServer, name: str
) -> None:
    data = bombs.BOMBS[name]()
    idle = memory(idle_server)
    with ThreadPoolExecutor(CLIENTS) as threads:
        answers = [threads.submit(post, idle_server, data) for _ in range(CLIENTS)]
        peak = peak_while(idle_server, answers)
    statuses = {answer.result()[0] for answer in answers}
    assert 200 in statuses
    assert statuses <= {200, 503}
    assert peak - idle < MAX_MEMORY
    assert memory(idle_server) - idle < MAX_MEMORY / 4
    assert post(idle_server, SAMPLE.read_bytes()) == (200, "")


def test_server_says_what_to_send_instead_of_a_larger_image(idle_server: EmbeddedServer) -> None:
    status, message = post(idle_server, bombs.webp(10_000, 9_999))
    assert status == 400
    assert "the image needs 1527 MiB to decode; the limit is 448 MiB" in message
    assert "send a smaller image, or a baseline JPEG" in message
