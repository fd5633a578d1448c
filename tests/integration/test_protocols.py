"""What the protocols offer beside the question and the answer: TLS, headers, compression, ids."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client import (
    SAMPLE,
    AccessDenied,
    Classifier,
    InvalidImage,
    ModelNotFound,
    ServerUnavailable,
    Tls,
    classify,
)
from client._settings import Compression
from scripts.embedded import EmbeddedServer, Endpoints
from tests import images, tls
from tests.integration.conftest import HASTE, url
from tests.proxy import Relay, haproxy


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tls.Certificates:
    return tls.issue(tmp_path_factory.mktemp("certificates"))


@contextmanager
def secured(
    repository: Path,
    folder: Path,
    protocol: str,
    certificates: tls.Certificates,
    *,
    mutual: bool,
) -> Iterator[str]:
    """Serve over TLS, gRPC by Triton itself and HTTP behind a proxy, and give the URL."""
    server = certificates.server
    arguments = [
        "--grpc-use-ssl=1",
        f"--grpc-server-cert={server.certificate}",
        f"--grpc-server-key={server.key}",
        f"--grpc-root-cert={certificates.ca}",
        f"--grpc-use-ssl-mutual={int(mutual)}",
        *HASTE,
    ]
    at = Endpoints.free()
    with EmbeddedServer(repository, endpoints=at, arguments=arguments):
        if protocol == "grpc":
            yield f"grpcs://localhost:{at.grpc}"
            return
        ca = certificates.ca if mutual else None
        with haproxy(folder, at.http, server.both, ca=ca) as port:
            yield f"https://localhost:{port}"


def test_over_tls_the_server_is_known_by_its_certificate(
    small_repository: Path, tmp_path: Path, protocol: str, certificates: tls.Certificates
) -> None:
    with secured(small_repository, tmp_path, protocol, certificates, mutual=False) as address:
        with Classifier(address, model="birds", tls=Tls(certificates.ca)) as classifier:
            results = list(classifier.stream([SAMPLE] * 20))
            assert [result.error for result in results] == [None] * 20
            assert [model.name for model in classifier.models()] == ["birds"]
        with (
            Classifier(address, model="birds", retries=0) as classifier,
            pytest.raises(ServerUnavailable),
        ):
            classifier.image(SAMPLE)  # signed by nobody whom everybody knows
        stranger = tls.issue(tmp_path)
        with (
            Classifier(address, model="birds", retries=0, tls=Tls(stranger.ca)) as classifier,
            pytest.raises(ServerUnavailable),
        ):
            classifier.image(SAMPLE)


def test_over_mutual_tls_the_client_is_known_too(
    small_repository: Path, tmp_path: Path, protocol: str, certificates: tls.Certificates
) -> None:
    client = certificates.client
    known = Tls(certificates.ca, client.certificate, client.key)
    stranger = tls.issue(tmp_path).client
    unknown = Tls(certificates.ca, stranger.certificate, stranger.key)
    with secured(small_repository, tmp_path, protocol, certificates, mutual=True) as address:
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


def test_a_proxy_may_want_a_path_and_a_token(
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


def test_restricted_inference_wants_the_key(small_repository: Path, protocol: str) -> None:
    arguments = [
        "--http-restricted-api=inference:infer-key=secret",
        "--grpc-restricted-protocol=inference:infer-key=secret",
    ]
    key = {"grpc": "triton-grpc-protocol-infer-key", "http": "infer-key"}[protocol]
    at = Endpoints.free()
    with EmbeddedServer(small_repository, endpoints=at, arguments=arguments) as server:
        with Classifier(
            url(server, protocol), model="birds", headers={key.title(): "secret"}
        ) as classifier:
            assert classifier.image(SAMPLE).top
        with (
            Classifier(url(server, protocol), model="birds", retries=3) as classifier,
            pytest.raises(AccessDenied, match="restricted"),
        ):
            classifier.image(SAMPLE)


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compression_makes_a_picture_small_and_the_answer_is_the_same(
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


def test_every_request_has_an_id_of_its_own_or_the_one_it_is_given(birds: Classifier) -> None:
    results = [*birds.stream([SAMPLE, b"no image"] * 4), birds.image(SAMPLE)]
    assert len({result.request_id for result in results}) == len(results)
    assert birds.image(SAMPLE, request_id="order 66").request_id == "order 66"


def test_the_id_is_in_the_servers_log_and_in_every_error(
    small_repository: Path, protocol: str, tmp_path: Path
) -> None:
    log = tmp_path / "tritonserver.log"
    at = Endpoints.free()
    arguments = ["--log-verbose=1"]
    with EmbeddedServer(small_repository, endpoints=at, arguments=arguments, log=log) as server:
        with Classifier(url(server, protocol), model="birds") as classifier:
            classifier.image(SAMPLE, request_id="good-one")
            with pytest.raises(InvalidImage) as refused:
                classifier.image(b"no image")
        with (
            Classifier(url(server, protocol), model="planes") as classifier,
            pytest.raises(ModelNotFound) as missed,
        ):
            classifier.image(SAMPLE, request_id="of-no-model")
    said = log.read_text()
    assert "[request id: good-one]" in said
    assert refused.value.request_id
    assert f"[request id: {refused.value.request_id}]" in said
    assert missed.value.request_id == "of-no-model"
    with (
        Classifier(f"{protocol}://127.0.0.1:9", retries=0) as classifier,
        pytest.raises(ServerUnavailable) as lost,
    ):
        classifier.image(SAMPLE, request_id="to-nobody")
    assert lost.value.request_id == "to-nobody"
