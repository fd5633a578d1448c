"""URLs of servers, as users write them."""

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
def test_the_protocol_is_guessed_from_scheme_and_port(
    url: str, protocol: Protocol, address: str
) -> None:
    assert Endpoint.parse(url) == Endpoint(protocol, address)


@pytest.mark.parametrize(
    ("url", "protocol", "address"),
    [
        ("grpcs://triton", "grpc", "triton:443"),
        ("https://triton/models", "http", "triton:443/models"),
        ("https://triton:8443", "http", "triton:8443"),
    ],
)
def test_a_scheme_that_ends_in_s_is_over_tls(url: str, protocol: Protocol, address: str) -> None:
    assert Endpoint.parse(url) == Endpoint(protocol, address, secure=True)
    assert str(Endpoint.parse(url)) == f"{protocol}s://{address}"


def test_certificates_make_a_url_without_a_scheme_one_over_tls() -> None:
    assert Endpoint.parse("triton:8001", secure=True) == Endpoint("grpc", "triton:8001", True)
    assert Endpoint.parse("triton", "http", secure=True) == Endpoint("http", "triton:443", True)
    with pytest.raises(ValueError, match="does not go with TLS; write https://triton:8000"):
        Endpoint.parse("http://triton:8000", secure=True)


def test_a_protocol_that_is_given_is_not_guessed() -> None:
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
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is no URL of a server"):
        Endpoint.parse(url)


def test_grpc_has_no_paths() -> None:
    with pytest.raises(ValueError, match="has a path"):
        Endpoint.parse("grpc://triton:8001/models")


def test_a_scheme_that_contradicts_the_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="does not go with protocol grpc"):
        Endpoint.parse("http://localhost:8000", "grpc")


@pytest.mark.parametrize(
    ("url", "is_this_machine"),
    [("localhost", True), ("127.0.0.1:9000", True), ("[::1]:8001", True), ("triton", False)],
)
def test_a_loopback_address_is_known(url: str, is_this_machine: bool) -> None:
    assert Endpoint.parse(url).is_this_machine == is_this_machine
