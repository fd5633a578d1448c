"""The command `python -m client.classify` with a real server, and without one."""

import csv
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import client
from client import SAMPLE, Classifier, Model, classify
from scripts.embedded import EmbeddedServer, Endpoints
from scripts.repository.catalog import CATALOG
from tests.conftest import ROOT
from tests.integration.conftest import HASTE, PROTOCOLS, add_birds, end, url

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(server: EmbeddedServer, protocol: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command with the test server and return its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        exit_code = classify.main(["--url", url(server, protocol), *arguments])
        return exit_code, *capsys.readouterr()

    return run


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Two photographs, and a text file with the suffix of one."""
    for name in ("a.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(SAMPLE.read_bytes())
    (tmp_path / "b.jpg").write_text("no image")
    return tmp_path


@pytest.fixture
def command(server: EmbeddedServer) -> list[str]:
    """The command in a separate process."""
    module = [sys.executable, "-m", "client.classify"]
    return [*module, "--url", url(server, "grpc"), "--model", "birds"]


def errors(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("error: ")]


def summary(output: str) -> str:
    return next(line for line in output.splitlines() if "images/s" in line)


def test_the_sample_is_classified_by_default(run: Run) -> None:
    exit_code, results, output = run()
    assert exit_code == 0
    assert "no image given: classifying the sample photograph chelsea.jpg" in output
    assert "by resnet50_v1" in results
    assert " ms" in results
    assert results.count("%") == 5


def test_each_image_is_classified(run: Run) -> None:
    exit_code, results, output = run(str(SAMPLE), str(SAMPLE), "--model", "birds", "--top-k", "3")
    assert exit_code == 0
    assert "sample photograph" not in output
    assert results.count("class 1") <= results.count("%") == 6


def test_an_invalid_file_is_one_error_line_and_the_others_are_classified(
    run: Run, tmp_path: Path
) -> None:
    broken = tmp_path / "broken[1].jpg"
    broken.write_text("no image")
    exit_code, results, output = run(str(broken), str(SAMPLE), "--model", "birds")
    assert exit_code == 1
    assert results.count("%") == 5
    (line,) = errors(output)
    assert line.startswith(f"error: {broken}: not an image (8 bytes)")


def test_a_folder_a_pattern_and_standard_input_are_classified(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b.jpg", "a.jpg", "below/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(SAMPLE.read_bytes())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(SAMPLE.read_bytes())))
    options = ("--model", "birds", "--top-k", "1", "--recursive")
    exit_code, results, _ = run(str(tmp_path), f"{tmp_path}/b*", "-", *options)
    assert exit_code == 0
    classified = re.findall(r"(\S+) by birds", results)
    names = [Path(name).name for name in classified]
    assert names == ["a.jpg", "b.jpg", "c.jpg", "b.jpg", "-"]


def test_an_empty_folder_is_one_error_line_and_the_others_are_classified(
    run: Run, tmp_path: Path
) -> None:
    exit_code, results, output = run(str(tmp_path), str(SAMPLE), "--model", "birds")
    assert exit_code == 1
    assert errors(output) == [f"error: {tmp_path}: there is no image in this folder"]
    assert results.count("%") == 5


def test_a_missing_file_is_one_error_line(run: Run) -> None:
    exit_code, _, output = run("nowhere.jpg")
    assert exit_code == 1
    assert errors(output) == ["error: nowhere.jpg: No such file or directory"]


def test_json_is_one_array_in_the_order_of_the_images(run: Run, album: Path) -> None:
    exit_code, results, _ = run(str(album), "--model", "birds", "--output", "json")
    first, broken, last = json.loads(results)
    assert exit_code == 1
    assert [Path(each["source"]).name for each in (first, broken, last)] == [
        "a.jpg",
        "b.jpg",
        "c.jpg",
    ]
    assert first["predictions"] == last["predictions"]
    assert [*first["predictions"][0]] == ["class_id", "probability", "label"]
    assert (first["model"], len(first["predictions"]), first["error"]) == ("birds", 5, None)
    assert first["milliseconds"] > 0
    assert broken["predictions"] == []
    assert broken["error"]["kind"] == "InvalidImage"
    assert broken["request_id"] not in {None, first["request_id"]}


def test_json_without_a_result_is_an_empty_array(run: Run) -> None:
    exit_code, results, _ = run("--model", "planes", "--output", "json")
    assert (exit_code, json.loads(results)) == (2, [])


def test_json_lines_have_the_same_objects_one_per_line(run: Run, album: Path) -> None:
    options = [str(album), "--model", "birds"]
    _, results, _ = run(*options, "--output", "json")
    _, lines, _ = run(*options, "--output", "jsonl")
    ours, theirs = json.loads(results), [json.loads(line) for line in lines.splitlines()]
    for each in ours + theirs:
        each.pop("milliseconds")
        each.pop("request_id")
    assert ours == theirs


def test_csv_has_a_row_for_each_prediction_and_for_each_failure(run: Run, album: Path) -> None:
    _, results, _ = run(str(album), "--model", "birds", "--output", "csv", "--top-k", "2")
    rows = list(csv.DictReader(io.StringIO(results)))
    assert [(Path(row["source"]).name, row["rank"]) for row in rows] == [
        ("a.jpg", "1"),
        ("a.jpg", "2"),
        ("b.jpg", ""),
        ("c.jpg", "1"),
        ("c.jpg", "2"),
    ]
    assert rows[0]["label"] == f"class {rows[0]['class_id']}"
    assert rows[2]["error"].startswith("InvalidImage: not an image")


def test_classes_below_the_threshold_are_omitted(run: Run) -> None:
    _, results, _ = run(str(SAMPLE), "--model", "birds", "--top-k", "10", "--output", "json")
    probabilities = [each["probability"] for each in json.loads(results)[0]["predictions"]]
    middle = str(probabilities[4])
    options = ("--model", "birds", "--top-k", "10", "--threshold", middle)
    assert run(str(SAMPLE), *options)[1].count("%") == 5
    _, results, output = run(str(SAMPLE), "--model", "birds", "--threshold", "1.0")
    assert "nothing above the threshold" in results
    assert errors(output) == []


def test_the_summary_counts_images_and_failures(run: Run, album: Path) -> None:
    _, _, output = run(str(album), "--model", "birds", "--batch-size", "3")
    pattern = r"3 images, 1 failed, [\d.]+ images/s, p50 [\d.]+ ms, p99 [\d.]+ ms"
    assert re.fullmatch(pattern, summary(output))


def test_the_models_are_listed_with_recipe_and_classes(run: Run) -> None:
    exit_code, results, output = run("--list-models", "--output", "json")
    models = {model.pop("name"): model for model in json.loads(results)}
    assert (exit_code, output) == (0, "")
    assert set(models) == {*CATALOG, "birds", "birds_softmax", "two_birds"}
    for name, model in CATALOG.items():
        assert models[name]["ready"] is True
        assert models[name]["classes"] == 1000
        assert models[name]["recipe"]["resize"] == list(model.recipe.resize)
    assert models["birds"]["classes"] == 10


def test_the_models_are_listed_as_a_table_and_as_csv(run: Run) -> None:
    table = run("--list-models")[1]
    assert re.search(r"1000 +224 / 224 +mobilenetv2 +ready", table)
    assert "_onnx" not in table
    rows = list(csv.DictReader(io.StringIO(run("--list-models", "--output", "csv")[1])))
    assert {row["name"] for row in rows} == {*CATALOG, "birds", "birds_softmax", "two_birds"}
    assert len(run("--list-models", "--output", "jsonl")[1].splitlines()) == len(rows)


def test_an_unknown_model_is_one_error_line_that_lists_the_ready_models(run: Run) -> None:
    exit_code, _, output = run("--model", "planes")
    (line,) = errors(output)
    assert exit_code == 2
    assert "'planes' is not found" in line
    assert "; the server has: birds, birds_softmax, mobilenetv2, resnet101_v1" in line
    assert "_onnx" not in line


def test_all_classes_are_shown_if_there_are_fewer_than_five(run: Run) -> None:
    exit_code, results, output = run(str(SAMPLE), "--model", "two_birds")
    assert (exit_code, errors(output)) == (0, [])
    assert results.count("%") == 2


def test_an_invalid_top_k_is_one_error_line_for_all_images(run: Run, album: Path) -> None:
    exit_code, _, output = run(str(album), str(album), "--model", "birds", "--top-k", "11")
    assert exit_code == 2
    (line,) = errors(output)
    assert "top_k must be a whole number from 1 to 10, not 11" in line
    assert summary(output).startswith("0 of 6 images")


@pytest.mark.parametrize("address", ["localhost:9", "http://localhost:9", "nohost.invalid:8001"])
def test_an_unreachable_server_is_one_error_line(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify.main(["--url", address]) == 3
    (line,) = errors(capsys.readouterr().err)
    assert re.match(r"error: (grpc|http)://\S+:\d+ is unavailable: ", line)


def test_the_wrong_protocol_for_a_port_is_one_error_line_with_a_hint(
    server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    at = server.endpoints
    for address, hint in {
        f"http://localhost:{at.grpc}": f"gRPC port; use grpc://localhost:{at.grpc} or port 8000",
        f"grpc://localhost:{at.http}": f"HTTP port; use http://localhost:{at.http} or port 8001",
    }.items():
        assert classify.main(["--url", address, "--retries", "1"]) == 3
        (line,) = errors(capsys.readouterr().err)
        assert f"{address} is unavailable: this looks like Triton's {hint}" in line


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--url", "ftp://localhost"], "invalid URL"),
        (["--url", "localhost,ftp://localhost"], "invalid URL"),
        (["--header", "secret"], "invalid header 'secret'"),
        (["--header", "a header: secret"], "invalid header name"),
        (["--ca", "nowhere.pem"], "nowhere.pem is not a valid CA bundle"),
        (["--cert", "me.pem"], "needs its private key"),
        (["--admin-key-file", "nowhere.key"], "cannot read the key in nowhere.key: "),
        (["--retries", "-1"], "retries must be at least 0"),
    ],
)
def test_invalid_usage_is_one_error_line(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify.main(arguments) == 2
    (line,) = errors(capsys.readouterr().err)
    assert reason in line


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--concurrency", "0"], "must be at least 1"),
        (["--timeout", "-1"], "must be greater than 0"),
        (["--threshold", "much"], "invalid float value"),
        (["--output", "xml"], "invalid choice"),
    ],
)
def test_an_invalid_value_is_one_error_line(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        classify.main(arguments)
    assert ended.value.code == 2
    assert f"error: argument {arguments[0]}: {reason}" in capsys.readouterr().err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        classify.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"triton-imagenet {client.__version__}\n"


@pytest.fixture
def half_loaded(small_repository: Path, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server with the birds, and the planes without the step that loads their graph."""
    repository = tmp_path / "model_repository"
    shutil.copytree(small_repository, repository)
    add_birds(repository, tmp_path, "planes")
    (repository / "planes_pixels" / "1" / "model.onnx").write_bytes(b"no graph")
    arguments = ["--exit-on-error=false", "--strict-readiness=false", *HASTE]
    at = Endpoints.free()
    with EmbeddedServer(repository, endpoints=at, arguments=arguments) as server:
        yield server


def test_a_model_that_is_not_ready_is_listed_as_such(half_loaded: EmbeddedServer) -> None:
    for protocol in PROTOCOLS:
        with Classifier(url(half_loaded, protocol)) as classifier:
            birds, planes = classifier.models()
        assert (birds.name, birds.ready, birds.classes, birds.reason) == ("birds", True, 10, "")
        assert planes == Model("planes", ready=False, reason="not loaded")


@pytest.fixture
def restricted(small_repository: Path) -> Iterator[EmbeddedServer]:
    """A server that requires a key even to list its models."""
    arguments = [
        "--http-restricted-api=statistics:statistics-key=secret",
        "--grpc-restricted-protocol=statistics:statistics-key=secret",
        *HASTE,
    ]
    endpoints = Endpoints.free()
    with EmbeddedServer(small_repository, endpoints=endpoints, arguments=arguments) as server:
        yield server


def test_the_key_of_a_restricted_api_is_sent_from_an_option_or_the_environment(
    restricted: EmbeddedServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    headers = {
        "grpc": "triton-grpc-protocol-statistics-key: secret",
        "http": "Statistics-Key: secret",
    }
    for protocol, header in headers.items():
        listing = ["--url", url(restricted, protocol), "--list-models", "--output", "json"]
        monkeypatch.delenv("TRITON_HEADERS", raising=False)
        assert classify.main(listing) == 2
        (line,) = errors(capsys.readouterr().err)
        assert "restricted" in line
        assert "--header" in line
        assert classify.main([*listing, "--header", header]) == 0
        assert json.loads(capsys.readouterr().out)[0]["name"] == "birds"
        monkeypatch.setenv("TRITON_HEADERS", f"x-other: 1\n{header}")
        assert classify.main(listing) == 0
        capsys.readouterr()
        monkeypatch.delenv("TRITON_HEADERS")
        assert classify.main(["--url", url(restricted, protocol), "--model", "planes"]) == 2
        assert "the server does not list its models" in capsys.readouterr().err


def test_environment_variables_set_url_and_model(
    server: EmbeddedServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_URL", url(server, "http"))
    monkeypatch.setenv("TRITON_MODEL", "birds")
    assert classify.main([str(SAMPLE)]) == 0
    assert "by birds" in capsys.readouterr().out


def test_the_progress_bar_is_shown_on_a_terminal_only(command: list[str], album: Path) -> None:
    command = [*command, *[str(album / "a.jpg")] * 40, "--output", "jsonl"]
    screen, terminal = pty.openpty()
    shown = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=terminal,
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(terminal)
    results, _ = shown.communicate(timeout=60)
    assert "40/40" in os.read(screen, 1 << 20).decode()
    assert [json.loads(line)["model"] for line in results.splitlines()] == ["birds"] * 40
    piped = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert piped.stderr.startswith("40 images, 0 failed")
    assert piped.stderr.count("\n") == 1


def test_results_and_progress_bar_do_not_mix_on_a_terminal(command: list[str], album: Path) -> None:
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [*command, *[str(album / "a.jpg")] * 10, "--top-k", "1"],
        stdout=terminal,
        stderr=terminal,
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "200"},
    )
    os.close(terminal)
    shown = b""
    with suppress(OSError):  # read() fails when the terminal is closed
        while part := os.read(screen, 1 << 16):
            shown += part
    assert process.wait(60) == 0
    erase_line = "\x1b[2K"
    text = shown.decode().replace(erase_line, "|")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")
    headings = re.findall(r"(.?)" + re.escape(f"{album / 'a.jpg'} by birds"), plain, re.DOTALL)
    assert len(headings) == 10
    assert set(headings) <= {"|", "\n"}  # never after a bar


def test_ctrl_c_stops_at_once_and_leaves_complete_output(command: list[str]) -> None:
    endless = [*command, *[str(SAMPLE)] * 20_000, "--output", "json"]
    process = subprocess.Popen(
        endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout
    head = [process.stdout.readline() for _ in range(20)]
    assert process.stderr
    process.send_signal(signal.SIGINT)
    interrupted = time.monotonic()
    rest, output = process.stdout.read(), process.stderr.read()
    assert process.wait(timeout=30) == 130
    assert time.monotonic() - interrupted < 2
    done = json.loads("".join(head) + rest)
    assert 19 <= len(done) < 20_000
    counted = re.match(r"(\d+) of 20000 images, 0 failed", summary(output))
    assert counted
    assert int(counted[1]) in {len(done), len(done) - 1}  # interrupted between writing and counting
    assert errors(output) == ["error: interrupted"]


def test_a_server_crash_stops_the_command_and_leaves_complete_output(
    small_repository: Path,
) -> None:
    with EmbeddedServer(small_repository, endpoints=Endpoints.free(), arguments=HASTE) as server:
        arguments = ["--url", url(server, "grpc"), "--model", "birds", "--output", "json"]
        process = subprocess.Popen(
            [sys.executable, "-m", "client.classify", *arguments, *[str(SAMPLE)] * 20_000],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert process.stdout
        assert process.stderr
        head = [process.stdout.readline() for _ in range(20)]
        end(server, signal.SIGKILL)
        rest, output = process.stdout.read(), process.stderr.read()
    assert process.wait(timeout=30) == 3
    done = json.loads("".join(head) + rest)
    assert summary(output).startswith(f"{len(done)} of 20000 images, 0 failed")
    (line,) = errors(output)
    assert f"{url(server, 'grpc')} is unavailable" in line


def test_wait_waits_for_the_model(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(SAMPLE), "--model", "birds", "--wait", "5")[0] == 0
    assert run("--model", "planes", "--wait", "0.3")[0] == 2
    assert classify.main(["--url", "localhost:9", "--wait", "0.3"]) == 3
    assert len(errors(capsys.readouterr().err)) == 1


def test_a_closed_pipe_stops_the_command_without_a_traceback(command: list[str]) -> None:
    arguments = [*command, *[str(SAMPLE)] * 5_000, "--output", "jsonl"]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert "Traceback" not in process.stderr.read()
