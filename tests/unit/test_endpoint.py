"""Server URLs: parsing, defaults and errors."""

import pytest

from client._endpoint import Endpoint, Protocol


@pytest.mark.parametrize(
    ("url", "protocol", "address"),
    [
        ("localhost", "grpc", "localhost:8001"),
        ("localhost:8001", "grpc", "localhost:8001"),
        ("localhost:8000", "http", "localhost:8000"),
        ("localhost:9000", "grpc", "localhost:9000"),
        ("grpc://triton:8000", "grpc", "triton:8000"),
        ("http://triton", "http", "triton:8000"),
        ("http://triton:80/", "http", "triton:80"),
        ("http://triton/models/", "http", "triton:8000/models"),
        ("[::1]:8001", "grpc", "[::1]:8001"),
    ],
)
def test_scheme_and_port_determine_the_protocol(url: str, protocol: Protocol, address: str) -> None:
    assert Endpoint.parse(url) == Endpoint(protocol, address)


@pytest.mark.parametrize(
    ("url", "protocol", "address"),
    [
        ("grpcs://triton", "grpc", "triton:443"),
        ("https://triton/models", "http", "triton:443/models"),
        ("https://triton:8443", "http", "triton:8443"),
    ],
)
def test_schemes_ending_in_s_use_tls(url: str, protocol: Protocol, address: str) -> None:
    assert Endpoint.parse(url) == Endpoint(protocol, address, secure=True)
    assert str(Endpoint.parse(url)) == f"{protocol}s://{address}"


def test_certificates_enable_tls_for_urls_without_a_scheme() -> None:
    assert Endpoint.parse("triton:8001", secure=True) == Endpoint("grpc", "triton:8001", True)
    assert Endpoint.parse("triton", "http", secure=True) == Endpoint("http", "triton:443", True)
    with pytest.raises(ValueError, match="does not use TLS: use https://triton:8000"):
        Endpoint.parse("http://triton:8000", secure=True)


def test_an_explicit_protocol_overrides_the_port() -> None:
    assert Endpoint.parse("localhost:8000", "grpc").protocol == "grpc"
    assert Endpoint.parse("localhost", "http").address == "localhost:8000"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://triton",
        "http://",
        "localhost:port",
        "localhost:99999",
        "http://me@a",
        "http://a?b",
        "://a",
    ],
)
def test_invalid_urls_are_rejected(url: str) -> None:
    with pytest.raises(ValueError, match="invalid URL"):
        Endpoint.parse(url)


def test_a_grpc_url_with_a_path_is_rejected() -> None:
    with pytest.raises(ValueError, match="a gRPC URL cannot have a path"):
        Endpoint.parse("grpc://triton:8001/models")


def test_a_scheme_that_contradicts_the_protocol_is_rejected() -> None:
    with pytest.raises(ValueError, match="contradicts protocol grpc"):
        Endpoint.parse("http://localhost:8000", "grpc")


@pytest.mark.parametrize(
    ("url", "is_this_machine"),
    [("localhost", True), ("127.0.0.1:9000", True), ("[::1]:8001", True), ("triton", False)],
)
def test_loopback_addresses_are_recognized(url: str, is_this_machine: bool) -> None:
    assert Endpoint.parse(url).is_this_machine == is_this_machine
