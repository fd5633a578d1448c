"""`python -m client.classify` against a real server, and against none."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from client import SAMPLE, classify
from scripts.embedded import EmbeddedServer, Endpoints
from tests.integration.conftest import url

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(server: EmbeddedServer, protocol: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command at the test server and return its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        exit_code = classify.main(["--url", url(server, protocol), *arguments])
        return exit_code, *capsys.readouterr()

    return run


def test_without_an_image_it_classifies_the_sample_and_says_so(run: Run) -> None:
    exit_code, said, complaints = run()
    assert (exit_code, complaints) == (0, "")
    assert "no image given: classifying the sample photograph chelsea.jpg" in said
    assert "by resnet50_v1" in said
    assert " ms" in said
    assert said.count("%") == 5


def test_it_classifies_each_image_it_is_given(run: Run) -> None:
    exit_code, said, _ = run(str(SAMPLE), str(SAMPLE), "--model", "birds", "--top-k", "3")
    assert exit_code == 0
    assert "sample photograph" not in said
    assert said.count("class 1") <= said.count("%") == 6


def test_a_file_that_is_no_image_is_one_line_and_the_others_are_classified(
    run: Run, tmp_path: Path
) -> None:
    broken = tmp_path / "broken[1].jpg"
    broken.write_text("no image")
    exit_code, said, complaints = run(str(broken), str(SAMPLE), "--model", "birds")
    assert exit_code == 1
    assert said.count("%") == 5
    assert complaints.startswith(f"error: {broken}: not an image (8 bytes)")
    assert complaints.count("\n") == 1


def test_a_folder_a_pattern_and_standard_input_are_classified(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b.jpg", "a.jpg", "below/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(SAMPLE.read_bytes())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(SAMPLE.read_bytes())))
    options = ("--model", "birds", "--top-k", "1", "--recursive")
    exit_code, said, _ = run(str(tmp_path), f"{tmp_path}/b*", "-", *options)
    assert exit_code == 0
    classified = re.findall(r"(\S+|file object) by birds", said)
    assert [Path(name).name for name in classified] == [
        "a.jpg",
        "b.jpg",
        "c.jpg",
        "b.jpg",
        "file object",
    ]


def test_an_empty_folder_is_one_line_and_the_others_are_classified(
    run: Run, tmp_path: Path
) -> None:
    exit_code, said, complaints = run(str(tmp_path), str(SAMPLE), "--model", "birds")
    assert (exit_code, complaints) == (1, f"error: {tmp_path}: there is no image\n")
    assert said.count("%") == 5


def test_a_file_that_is_not_there_is_one_line(run: Run) -> None:
    exit_code, _, complaints = run("nowhere.jpg")
    assert (exit_code, complaints) == (1, "error: nowhere.jpg: No such file or directory\n")


def test_a_model_that_is_not_loaded_is_one_line_that_names_those_that_are(run: Run) -> None:
    exit_code, _, complaints = run("--model", "planes")
    assert exit_code == 2
    assert (
        "'planes' is not found; the server has: birds, birds_softmax, mobilenetv2, resnet101_v1"
        in complaints
    )
    assert "_onnx" not in complaints
    assert complaints.count("\n") == 1


def test_a_server_that_keeps_its_models_to_itself_makes_no_traceback(
    small_repository: Path, protocol: str, capsys: pytest.CaptureFixture[str]
) -> None:
    restricted = [
        "--http-restricted-api=model-repository:admin-key=secret",
        "--grpc-restricted-protocol=model-repository:admin-key=secret",
    ]
    endpoints = Endpoints.free()
    with EmbeddedServer(small_repository, endpoints=endpoints, arguments=restricted) as server:
        assert classify.main(["--url", url(server, protocol), "--model", "planes"]) == 2
    complaints = capsys.readouterr().err
    assert "what the server has it does not say" in complaints
    assert complaints.count("\n") == 1


def test_a_top_k_that_the_model_does_not_have_is_one_line(run: Run) -> None:
    exit_code, _, complaints = run("--model", "birds", "--top-k", "11")
    assert exit_code == 1
    assert "top_k must be a whole number from 1 to 10, not 11" in complaints


@pytest.mark.parametrize("address", ["localhost:9", "http://localhost:9", "nohost.invalid:8001"])
def test_a_server_that_is_not_there_is_one_line(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify.main(["--url", address]) == 3
    complaints = capsys.readouterr().err
    assert complaints.startswith("error: no server at ")
    assert complaints.count("\n") == 1


def test_the_wrong_protocol_for_a_port_is_one_line(
    server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    at = server.endpoints
    for address in (f"http://localhost:{at.grpc}", f"grpc://localhost:{at.http}"):
        assert classify.main(["--url", address]) == 3
        assert capsys.readouterr().err.count("\n") == 1


def test_a_url_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert classify.main(["--url", "ftp://localhost"]) == 2
    assert "is no URL of a server" in capsys.readouterr().err
