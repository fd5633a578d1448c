"""Deadlines, retries, failover and readiness."""

import itertools
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from tritonclient.utils import InferenceServerException

from client import (
    SAMPLE,
    Classification,
    Classifier,
    DeadlineExceeded,
    ImageFile,
    InvalidImage,
    ModelNotFound,
    ModelNotReady,
    ServerUnavailable,
)
from client._endpoint import Endpoint
from client._translation import translated
from scripts.embedded import Access, EmbeddedServer, Endpoints
from tests import bombs, namespaces
from tests.conftest import ROOT
from tests.integration.conftest import ADMIN, ADMIN_KEY, HASTE, PROTOCOLS, end, process_of, url
from tests.proxy import Relay

JPEG = SAMPLE.read_bytes()
UNANSWERED = (DeadlineExceeded, ServerUnavailable)


@pytest.fixture
def second(small_repository: Path) -> Iterator[EmbeddedServer]:
    """Another server with the birds, which tests stop and restart."""
    with EmbeddedServer(small_repository, endpoints=Endpoints.free(), arguments=HASTE) as server:
        yield server


@contextmanager
def restarted(server: EmbeddedServer, number: int, pause: float) -> "Iterator[Future[None]]":
    """Stop a server while the block runs, and start another on the same ports."""
    again = EmbeddedServer(server.repository, endpoints=server.endpoints, arguments=HASTE)

    def restart() -> None:
        end(server, number)
        server.stop()
        time.sleep(pause)
        again.start()

    with ThreadPoolExecutor(1) as pool:
        restarting = pool.submit(restart)
        try:
            yield restarting
        finally:
            restarting.result()
            again.stop()


def numbered(
    start: int, count: int, *, more_until: "Future[None] | None" = None
) -> Iterator[ImageFile]:
    """`count` photographs named by their index, and more until a future is done."""
    places = itertools.count(start)
    for place in places:
        if place >= start + count and (more_until is None or more_until.done()):
            return
        yield ImageFile(str(place), JPEG)


def counted(server: EmbeddedServer, outcome: str, model: str = "birds") -> int:
    """Return the server's own count of a model's requests with this outcome."""
    about = requests.get(f"{url(server, 'http')}/v2/models/{model}/stats", timeout=5).json()
    return int(about["model_stats"][0]["inference_stats"][outcome]["count"])


def grown(before: int, count: Callable[[], int], *, by: int = 1) -> int:
    """Wait until a count, which lags behind the responses, has grown; return by how much."""
    deadline = time.monotonic() + 10
    while (now := count()) < before + by:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return now - before


def check(results: list[Classification]) -> None:
    """Assert that all images have results, in order and without errors."""
    assert [result.error for result in results if result.error] == []
    assert [result.source for result in results] == [str(place) for place in range(len(results))]
    assert len({result.predictions for result in results}) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stream_survives_a_restart_of_the_server(small_repository: Path, number: int) -> None:
    # A second in which it answers what is in flight, and refuses the rest.
    arguments = [*HASTE, "--exit-timeout-secs=1"]
    at = Endpoints.free()
    with (
        EmbeddedServer(small_repository, endpoints=at, arguments=arguments) as server,
        ExitStack() as stack,
        ThreadPoolExecutor(len(PROTOCOLS)) as pool,
    ):

        def classify(classifier: Classifier) -> list[Classification]:
            return list(classifier.stream(numbered(50, 200, more_until=restarting)))

        options: dict[str, Any] = {"model": "birds", "retries": 30, "timeout": 5}
        classifiers = [
            stack.enter_context(Classifier(url(server, protocol), **options))
            for protocol in PROTOCOLS
        ]
        before = [list(classifier.stream(numbered(0, 50))) for classifier in classifiers]
        with restarted(server, number, pause=0.5) as restarting:
            after = list(pool.map(classify, classifiers))
            assert counted(server, "success") > 0
    for results in zip(before, after, strict=True):
        check(list(itertools.chain(*results)))


def test_requests_are_balanced_and_a_failed_server_is_excluded_until_it_is_ready(
    server: EmbeddedServer, second: EmbeddedServer, protocol: str
) -> None:
    urls = [url(server, protocol), url(second, protocol)]
    with Classifier(urls, model="birds", retries=0) as classifier:
        before = counted(server, "success"), counted(second, "success")
        results = [*classifier.stream(numbered(0, 200))]
        for each, count in zip((server, second), before, strict=True):
            assert counted(each, "success") - count >= 10  # the busier one gets fewer

        with restarted(second, signal.SIGKILL, pause=0.5) as restarting:
            results += classifier.stream(numbered(200, 200, more_until=restarting))
            deadline = time.monotonic() + 20
            while not counted(second, "success"):
                assert time.monotonic() < deadline
                results += classifier.stream(numbered(len(results), 1))
    check(results)


def test_no_reachable_server_is_one_error(protocol: str) -> None:
    urls = [f"{protocol}://127.0.0.1:9", f"{protocol}://127.0.0.1:10"]
    with Classifier(urls, retries=1) as classifier:
        assert not classifier.is_live()
        with pytest.raises(ServerUnavailable, match="is unavailable") as caught:
            classifier.image(SAMPLE)
    assert (caught.value.source, caught.value.model) == (str(SAMPLE), "resnet50_v1")
    assert caught.value.request_id


def test_both_addresses_of_a_host_name_are_used_and_one_may_be_down(
    small_repository: Path, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n127.0.0.1 triton.test\n127.0.0.2 triton.test\n")
    code = (
        "import sys; from client import SAMPLE, Classifier\n"
        "with Classifier(sys.argv[1], model='birds', retries=2) as classifier:\n"
        "    for result in classifier.stream([SAMPLE] * 100):\n"
        "        if result.error: raise result.error\n"
    )
    at = Endpoints.free()
    beside = Endpoints("127.0.0.2", at.http, at.grpc, at.metrics)
    setup = f"mount --bind {shlex.quote(str(hosts))} /etc/hosts"

    def shares(protocol: str, *servers: EmbeddedServer) -> list[int]:
        """Classify 100 images, and count those that each server classified."""
        before = [counted(each, "success") for each in servers]
        address = f"{protocol}://triton.test:{at.ports[protocol]}"
        client = namespaces.inside(setup, sys.executable, "-c", code, address)
        subprocess.run(client, cwd=ROOT, check=True)
        grown(sum(before), lambda: sum(counted(each, "success") for each in servers), by=100)
        counts = zip(servers, before, strict=True)
        return [counted(each, "success") - count for each, count in counts]

    with EmbeddedServer(small_repository, endpoints=at, arguments=HASTE) as one:
        with EmbeddedServer(small_repository, endpoints=beside, arguments=HASTE) as other:
            for protocol in PROTOCOLS:
                # HTTP spreads connections, gRPC requests.
                assert min(shares(protocol, one, other)) >= 5
        for protocol in PROTOCOLS:
            assert shares(protocol, one) == [100]


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_a_server_that_never_responds_fails_after_the_connection_timeout(
    silent: str, protocol: str
) -> None:
    with Classifier(f"{protocol}://{silent}", connect_timeout=0.3, retries=1) as classifier:
        start = time.monotonic()
        with pytest.raises(ServerUnavailable):
            classifier.image(SAMPLE)
        assert 0.3 <= time.monotonic() - start < 3


def test_a_request_is_retried_after_its_deadline(
    small_server: EmbeddedServer, protocol: str
) -> None:
    address, process = url(small_server, protocol), process_of(small_server)
    with Classifier(address, model="birds", timeout=0.4) as classifier:
        expected = classifier.image(SAMPLE).predictions
        process.suspend()
        try:
            # The server hangs during the first attempt.
            threading.Timer(0.6, process.resume).start()
            start = time.monotonic()
            assert classifier.image(SAMPLE).predictions == expected
            assert time.monotonic() - start > 0.4
            process.suspend()
            with (
                Classifier(address, model="birds", timeout=0.2, retries=0) as hasty,
                pytest.raises(ServerUnavailable),
            ):
                hasty.image(SAMPLE)
        finally:
            process.resume()


def test_the_server_does_not_decode_what_nobody_waits_for(
    small_server: EmbeddedServer, protocol: str
) -> None:
    before = counted(small_server, "success", "birds_preprocess")
    picture = bombs.png(6_000, 4_000, bombs.GREY)  # takes long to decode
    with Classifier(
        url(small_server, protocol), model="birds", retries=0, timeout=0.3
    ) as classifier:
        results = list(classifier.stream([picture] * 60, concurrency=60))
    assert {type(result.error) for result in results} <= {type(None), *UNANSWERED}
    with Classifier(url(small_server, protocol), model="birds") as classifier:
        classifier.image(SAMPLE)  # waits behind what is left of the queue
    assert counted(small_server, "success", "birds_preprocess") - before < 40


def test_a_rejected_request_is_not_retried(server: EmbeddedServer, protocol: str) -> None:
    def rejections(retries: int) -> int:
        before = counted(server, "fail")
        with (
            Classifier(url(server, protocol), model="birds", retries=retries) as classifier,
            pytest.raises(InvalidImage),
        ):
            classifier.image(b"no image")
        return grown(before, lambda: counted(server, "fail"))

    assert rejections(retries=5) == rejections(retries=0) > 0


def test_the_client_can_wait_for_a_starting_server(small_repository: Path) -> None:
    server = EmbeddedServer(small_repository, endpoints=Endpoints.free(), arguments=HASTE)

    def wait_and_classify(protocol: str) -> bool:
        with Classifier(url(server, protocol), model="birds") as classifier:
            classifier.wait_until_ready(timeout=30)
            return bool(classifier.image(SAMPLE).top)

    starting = threading.Timer(0.5, server.start)
    starting.start()
    try:
        with ThreadPoolExecutor(len(PROTOCOLS)) as pool:
            assert all(pool.map(wait_and_classify, PROTOCOLS))
    finally:
        starting.join()
        server.stop()


def test_a_failed_wait_raises_the_reason(server: EmbeddedServer, protocol: str) -> None:
    with Classifier(f"{protocol}://127.0.0.1:9") as classifier:
        start = time.monotonic()
        with pytest.raises(ServerUnavailable, match="is unavailable"):
            classifier.wait_until_ready(timeout=0.5)
        assert time.monotonic() - start < 3
    with (
        Classifier(url(server, protocol), model="planes") as classifier,
        pytest.raises(ModelNotFound),
    ):
        classifier.wait_until_ready(timeout=0.5)


def kill_stubs(server: EmbeddedServer, model: str) -> None:
    """Kill the processes that run a Python model."""
    for process in process_of(server).children(recursive=True):
        if f"/{model}/1/model.py" in " ".join(process.cmdline()):
            process.kill()


def test_a_retry_reaches_the_server_that_replaces_one_with_a_dead_python_model(
    server: EmbeddedServer, second: EmbeddedServer, protocol: str
) -> None:
    port = {each: each.endpoints.ports[protocol] for each in (server, second)}
    with (
        Relay(port[second]) as relay,
        Classifier(f"{protocol}://127.0.0.1:{relay.port}", model="birds", retries=0) as hasty,
        Classifier(f"{protocol}://127.0.0.1:{relay.port}", model="birds") as classifier,
    ):
        expected = [each.image(SAMPLE).predictions for each in (hasty, classifier)]
        kill_stubs(second, "birds_postprocess")
        with pytest.raises(ServerUnavailable, match=r"Stub process .* is not healthy") as caught:
            hasty.image(SAMPLE)
        assert caught.value.reconnect
        relay.target = ("127.0.0.1", port[server])  # for new connections
        results = list(classifier.stream([SAMPLE] * 40))
        assert [result.error for result in results] == [None] * 40
        assert {result.predictions for result in results} == set(expected)
        assert hasty.image(SAMPLE).top


@pytest.mark.parametrize(
    ("message", "reconnect"),
    [
        ("in ensemble 'birds', Stub process 'birds_pixels_0_0' is not healthy.", True),
        ("Failed to process the request(s) for model instance 'a', message: Stub process", True),
        ("Server is stopping, scheduler for model has stopped accepting new requests", True),
        ("in ensemble 'birds', Failed to increase the shared memory pool size for key 'a'", False),
        ("in ensemble 'birds', Exceeds maximum queue size", False),
    ],
)
def test_a_server_that_cannot_answer_now_is_retried(message: str, reconnect: bool) -> None:
    status = "503" if "queue" in message else "500"
    with pytest.raises(ServerUnavailable) as caught, translated(Endpoint("http", "triton:80"), ()):
        raise InferenceServerException(message, status)
    assert caught.value.reconnect == reconnect


@pytest.fixture(scope="module")
def explicit(small_repository: Path) -> Iterator[EmbeddedServer]:
    """A server whose models the administrator loads and unloads."""
    arguments = ["--model-control-mode=explicit", "--load-model=*", *HASTE]
    at, access = Endpoints.free(), Access(admin_key=ADMIN_KEY)
    with EmbeddedServer(
        small_repository, endpoints=at, access=access, arguments=arguments
    ) as server:
        yield server


def test_requests_are_retried_while_a_model_is_reloaded(
    explicit: EmbeddedServer, protocol: str
) -> None:
    def control(action: str) -> None:
        address = f"{url(explicit, 'http')}/v2/repository/models/birds/{action}"
        requests.post(address, headers=ADMIN, timeout=30).raise_for_status()

    control("load")
    with Classifier(url(explicit, protocol), model="birds", retries=20) as classifier:
        classifier.image(SAMPLE)
        control("unload")
        again = threading.Timer(0.5, control, ["load"])
        again.start()
        assert classifier.image(SAMPLE).top
        again.join()
        control("unload")
    with (
        Classifier(url(explicit, protocol), model="birds", retries=0) as classifier,
        pytest.raises(ModelNotReady),
    ):
        classifier.image(SAMPLE)
