"""TLS, headers, compression and request ids over both protocols."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from client import (
    SAMPLE,
    AccessDenied,
    AsyncClassifier,
    Classifier,
    InvalidImage,
    ModelNotFound,
    ServerUnavailable,
    Tls,
    classify,
)
from client._options import Compression
from scripts import embedded
from scripts.embedded import Access, EmbeddedServer, Endpoints
from tests import images, tls
from tests.integration.conftest import ADMIN_KEY, HASTE, url
from tests.proxy import Relay, haproxy
from tests.web import serving


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tls.Certificates:
    return tls.issue(tmp_path_factory.mktemp("certificates"))


@contextmanager
def secured(
    plain: EmbeddedServer,
    folder: Path,
    protocol: str,
    certificates: tls.Certificates,
    *,
    mutual: bool,
) -> Iterator[str]:
    """Serve gRPC with Triton's own TLS, or a plain server's HTTP by a TLS proxy; yield the URL."""
    server, ca = certificates.server, certificates.ca if mutual else None
    if protocol == "http":
        with haproxy(folder, plain.endpoints.http, server.both, ca=ca) as port:
            yield f"https://localhost:{port}"
        return
    access = Access(tls=embedded.Tls(server.certificate, server.key, ca))
    at = Endpoints.free()
    with EmbeddedServer(plain.repository, endpoints=at, access=access, arguments=HASTE):
        yield f"grpcs://localhost:{at.grpc}"


def test_tls_verifies_the_server(
    keyed: EmbeddedServer, tmp_path: Path, protocol: str, certificates: tls.Certificates
) -> None:
    with secured(keyed, tmp_path, protocol, certificates, mutual=False) as address:
        with Classifier(address, model="birds", tls=Tls(certificates.ca)) as classifier:
            results = list(classifier.stream([SAMPLE] * 20))
            assert [result.error for result in results] == [None] * 20
            assert [model.name for model in classifier.models()] == ["birds"]
        with (
            Classifier(address, model="birds", retries=0) as classifier,
            pytest.raises(ServerUnavailable),
        ):
            classifier.image(SAMPLE)  # not signed by one of the system's authorities
        stranger = tls.issue(tmp_path)
        with (
            Classifier(address, model="birds", retries=0, tls=Tls(stranger.ca)) as classifier,
            pytest.raises(ServerUnavailable),
        ):
            classifier.image(SAMPLE)


def test_mutual_tls_verifies_the_client(
    keyed: EmbeddedServer, tmp_path: Path, protocol: str, certificates: tls.Certificates
) -> None:
    client = certificates.client
    known = Tls(certificates.ca, client.certificate, client.key)
    stranger = tls.issue(tmp_path).client
    unknown = Tls(certificates.ca, stranger.certificate, stranger.key)
    with secured(keyed, tmp_path, protocol, certificates, mutual=True) as address:
        with Classifier(address, model="birds", tls=known) as classifier:
            assert classifier.image(SAMPLE).top
        for other in (Tls(certificates.ca), unknown):
            with (
                Classifier(address, model="birds", retries=0, tls=other) as classifier,
                pytest.raises(ServerUnavailable),
            ):
                classifier.image(SAMPLE)
        files = ["--ca", certificates.ca, "--cert", client.certificate, "--key", client.key]
        arguments = ["--url", address, "--model", "birds", str(SAMPLE)]
        assert classify.main([*arguments, *map(str, files)]) == 0
        assert classify.main([*arguments, "--retries", "0", *map(str, files[:2])]) == 3


def test_a_proxy_can_require_a_path_and_a_token(
    server: EmbeddedServer, tmp_path: Path, certificates: tls.Certificates
) -> None:
    rules = (
        '    http-request deny deny_status 401 unless { req.hdr(authorization) "Bearer secret" }\n'
        "    http-request replace-path /models(/.*) \\1"
    )
    backend, ca = server.endpoints.http, Tls(certificates.ca)
    with haproxy(tmp_path, backend, certificates.server.both, rules=rules) as port:
        address = f"https://localhost:{port}/models"
        token = {"Authorization": "Bearer secret"}
        with Classifier(address, model="birds", tls=ca, headers=token) as classifier:
            assert classifier.image(SAMPLE).top
        with (
            Classifier(address, model="birds", tls=ca) as classifier,
            pytest.raises(AccessDenied, match=r"^HTTP 401 Unauthorized$") as caught,
        ):
            classifier.image(SAMPLE)
        assert (caught.value.source, caught.value.model) == (str(SAMPLE), "birds")


@pytest.fixture(scope="module")
def restricted(small_repository: Path) -> Iterator[EmbeddedServer]:
    """A server that classifies only for holders of a key."""
    arguments = [
        "--http-restricted-api=inference:infer-key=secret",
        "--grpc-restricted-protocol=inference:infer-key=secret",
        *HASTE,
    ]
    at = Endpoints.free()
    with EmbeddedServer(small_repository, endpoints=at, arguments=arguments) as server:
        yield server


def test_restricted_inference_requires_the_key_in_the_headers_of_classifier_or_request(
    restricted: EmbeddedServer, protocol: str
) -> None:
    key = {"grpc": "triton-grpc-protocol-infer-key", "http": "infer-key"}[protocol]
    address = url(restricted, protocol)
    with Classifier(address, model="birds", headers={key.title(): "secret"}) as classifier:
        assert classifier.image(SAMPLE).top
    with (
        Classifier(address, model="birds", retries=3) as classifier,
        pytest.raises(AccessDenied, match="restricted"),
    ):
        classifier.image(SAMPLE)

    headers = {key: "secret"}
    with Classifier(address, model="birds", headers={key.title(): "wrong"}) as classifier:
        assert classifier.image(SAMPLE, headers=headers).top
        assert len(classifier.batch([SAMPLE] * 2, headers=headers)) == 2
        with pytest.raises(AccessDenied, match="restricted"):
            classifier.image(SAMPLE)

    async def classify() -> None:
        async with AsyncClassifier(address, model="birds") as classifier:
            assert (await classifier.image(SAMPLE, headers=headers)).top
            assert len(await classifier.batch([SAMPLE] * 2, headers=headers)) == 2
            with pytest.raises(AccessDenied, match="restricted"):
                await classifier.image(SAMPLE)

    asyncio.run(classify())


def test_the_administrators_key_allows_shared_memory(
    keyed: EmbeddedServer, protocol: str, tmp_path: Path
) -> None:
    file = tmp_path / "admin.key"
    file.write_text(f"{ADMIN_KEY}\n")
    for key in (None, "wrong"):
        with (
            Classifier(
                url(keyed, protocol), model="birds", shared_memory=True, admin_key=key
            ) as classifier,
            pytest.raises(AccessDenied, match="admin-key"),
        ):
            classifier.image(SAMPLE)
    command = ["--url", url(keyed, protocol), "--model", "birds", "--shared-memory", str(SAMPLE)]
    assert classify.main([*command, "--admin-key-file", str(file)]) == 0
    assert classify.main(command) == 2


@pytest.mark.parametrize("headers", [{"a header": "1"}, {"traceparent": "00\n01"}])
def test_an_invalid_header_of_a_request_is_rejected(
    headers: dict[str, str],
) -> None:
    with (
        Classifier("localhost:9") as classifier,
        pytest.raises(ValueError, match=r"invalid .*header"),
    ):
        classifier.image(SAMPLE, headers=headers)


def test_the_trace_of_a_request_is_the_callers(small_repository: Path) -> None:
    exported = bytearray()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            exported.extend(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

    traces = {
        "grpc": ["4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"],
        "http": ["5cf92f3577b34da6a3ce929d0e0e4736", "1bf7651916cd43dd8448eb211c80319c"],
    }
    with serving(Collector) as collector:
        arguments = [
            "--trace-config=mode=opentelemetry",
            "--trace-config=rate=1",
            "--trace-config=level=TIMESTAMPS",
            f"--trace-config=opentelemetry,url=http://{collector}/v1/traces",
            "--trace-config=opentelemetry,bsp_schedule_delay=100",
            *HASTE,
        ]
        at = Endpoints.free()
        with EmbeddedServer(small_repository, endpoints=at, arguments=arguments) as server:
            for protocol, each in traces.items():
                with Classifier(url(server, protocol), model="birds") as classifier:
                    # Triton 24.10 ignores the header of some early gRPC requests.
                    for trace in each * 3:
                        headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
                        classifier.image(SAMPLE, headers=headers)
            deadline = time.monotonic() + 10
            while not all(
                trace.encode() in exported for trace in itertools.chain(*traces.values())
            ):
                assert time.monotonic() < deadline
                time.sleep(0.05)


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compression_reduces_bytes_and_keeps_the_results(
    server: EmbeddedServer, birds: Classifier, protocol: str, compression: Compression
) -> None:
    flat = images.encode(images.photo(8, 8).resize((400, 400)), "BMP")
    with (
        Relay(server.endpoints.ports[protocol]) as relay,
        Classifier(
            f"{protocol}://127.0.0.1:{relay.port}", model="birds", compression=compression
        ) as classifier,
    ):
        result = classifier.image(flat)
    assert result.predictions == birds.image(flat).predictions
    assert relay.sent < len(flat) / 4


def test_request_ids_are_unique_or_the_callers(birds: Classifier) -> None:
    results = [*birds.stream([SAMPLE, b"no image"] * 4), birds.image(SAMPLE)]
    assert len({result.request_id for result in results}) == len(results)
    assert birds.image(SAMPLE, request_id="order 66").request_id == "order 66"


@pytest.fixture(scope="module")
def verbose(
    small_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """A server that logs each request."""
    log = tmp_path_factory.mktemp("log") / "tritonserver.log"
    at, arguments = Endpoints.free(), ["--log-verbose=1", *HASTE]
    with EmbeddedServer(small_repository, endpoints=at, arguments=arguments, log=log) as server:
        yield server


def test_the_request_id_is_in_the_servers_log_and_in_errors(
    verbose: EmbeddedServer, protocol: str
) -> None:
    with Classifier(url(verbose, protocol), model="birds") as classifier:
        classifier.image(SAMPLE, request_id=f"good-one-{protocol}")
        with pytest.raises(InvalidImage) as rejected:
            classifier.image(b"no image")
    with (
        Classifier(url(verbose, protocol), model="planes") as classifier,
        pytest.raises(ModelNotFound) as missed,
    ):
        classifier.image(SAMPLE, request_id="unknown-model")
    assert verbose.log
    output = verbose.log.read_text()
    assert f"[request id: good-one-{protocol}]" in output
    assert rejected.value.request_id
    assert f"[request id: {rejected.value.request_id}]" in output
    assert missed.value.request_id == "unknown-model"
    with (
        Classifier(f"{protocol}://127.0.0.1:9", retries=0) as classifier,
        pytest.raises(ServerUnavailable) as lost,
    ):
        classifier.image(SAMPLE, request_id="no-server")
    assert lost.value.request_id == "no-server"
