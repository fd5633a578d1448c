"""The administrator's key, TLS files, and the addresses that a server listens on."""

import argparse
import re
from pathlib import Path

import pytest

from scripts import serve
from scripts.embedded import Access, Endpoints, Tls
from scripts.embedded.access import RESTRICTED, read_key
from scripts.errors import UserError
from tests import tls


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "admin.key"
    file.touch(mode=0o600)
    return file


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tls.Certificates:
    return tls.issue(tmp_path_factory.mktemp("certificates"))


def options(*words: str) -> argparse.Namespace:
    return serve.parser().parse_args(words)


def test_the_key_is_the_word_in_the_file(key_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    key_file.write_text(" s3cret=+/:,\n\n")
    assert read_key(key_file) == "s3cret=+/:,"
    assert serve.access(options(f"--admin-key-file={key_file}")) == Access("s3cret=+/:,")
    assert serve.access(options()) == Access()
    assert caplog.messages == []


@pytest.mark.parametrize(
    "content", ["", " \n", "two words", "tab\there", "two\nlines", "schlüssel"]
)
def test_a_key_that_a_header_cannot_carry_is_one_clear_line(key_file: Path, content: str) -> None:
    key_file.write_text(content)
    with pytest.raises(UserError) as caught:
        read_key(key_file)
    assert str(caught.value) == (
        f"{key_file} must hold the administrator's key, one word of visible ASCII characters; "
        f"make one: openssl rand -hex 32 > {key_file}"
    )


def test_a_key_that_every_user_can_read_is_reported(
    key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key_file.write_text("secret")
    key_file.chmod(0o644)
    assert read_key(key_file) == "secret"
    assert caplog.messages == [f"every user can read {key_file}; run: chmod o-r {key_file}"]


def test_every_start_without_a_key_restricts_the_apis_with_another_value() -> None:
    first, second = (Access().options() for _ in range(2))
    assert [option.partition("=")[0] for option in first] == [
        "--http-restricted-api",
        "--grpc-restricted-protocol",
    ]
    for option in first:
        assert option.partition("=")[2].partition(":")[0].split(",") == list(RESTRICTED)
        assert re.search("=[0-9a-f]{64}$", option)
    assert first != second


@pytest.mark.parametrize(
    "words",
    [
        ["--tls-certificate=a"],
        ["--tls-key=a"],
        ["--tls-client-ca=a"],
        ["--tls-client-ca=a", "--tls-key=a"],
    ],
)
def test_tls_needs_a_certificate_and_its_key(words: list[str]) -> None:
    with pytest.raises(UserError, match="TLS needs both --tls-certificate and --tls-key"):
        serve.access(options(*words))


def test_tls_files_are_checked_before_the_start(
    certificates: tls.Certificates, tmp_path: Path
) -> None:
    server, other, missing = certificates.server, certificates.client, tmp_path / "missing"
    empty = tmp_path / "empty"
    empty.touch()
    Tls(server.certificate, server.key, certificates.ca).check()
    for files, reason in [
        ((server.certificate, other.key, None), "KEY_VALUES_MISMATCH"),
        ((missing, server.key, None), "No such file or directory"),
        ((server.certificate, empty, None), "cannot use"),
        ((server.certificate, server.key, empty), "cannot use"),
        ((server.certificate, server.key, missing), "No such file or directory"),
    ]:
        with pytest.raises(UserError, match=reason):
            Access(tls=Tls(*files)).check()


def test_http_and_metrics_stay_within_the_machine_if_they_are_not_secured() -> None:
    everywhere, local = "0.0.0.0", "127.0.0.1"  # noqa: S104
    for words, expected in [
        ([], (local, local, local)),
        (["--address", everywhere], (everywhere, everywhere, local)),
        (["--address", "127.0.0.2"], ("127.0.0.2",) * 3),
        (["--address", everywhere, "--tls-certificate", "a"], (local, everywhere, local)),
        (["--metrics-address", everywhere], (local, local, everywhere)),
    ]:
        at = serve.endpoints(options(*words))
        assert tuple(at.addresses.values()) == expected
        assert {at.at(protocol).partition(":")[0] for protocol in at.ports} <= {local, "127.0.0.2"}
    assert Endpoints().addresses == dict.fromkeys(("http", "grpc", "metrics"), local)
