"""`python -m scripts.serve` as its user meets it: a process with ports, signals and exit codes."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from client import SAMPLE, Classifier, ModelNotFound
from scripts.embedded import EmbeddedServer, Endpoints, ServerError
from tests.conftest import ROOT
from tests.integration.conftest import alive, url


@contextmanager
def serve(
    repository: Path, *arguments: str, prefix: Sequence[str] = ()
) -> Iterator["subprocess.Popen[str]"]:
    """Run the command; whatever a test leaves running is ended."""
    command = [sys.executable, "-m", "scripts.serve", f"--model-repository={repository}"]
    process = subprocess.Popen(
        [*prefix, *command, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def ports(endpoints: Endpoints) -> list[str]:
    return [f"--{protocol}-port={port}" for protocol, port in endpoints.ports.items()]


def wait_until_ready(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    printed = ""
    while "Ctrl-C" not in printed:
        line = process.stdout.readline()
        assert line, printed
        printed += line
    return printed


def children(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The embedded Triton and its stubs."""
    found = psutil.Process(process.pid).children(recursive=True)
    assert "tritonserver" in {child.name() for child in found}
    assert len(found) > 3
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_says_when_it_is_ready_and_a_signal_ends_it_and_every_child(
    small_repository: Path, number: signal.Signals
) -> None:
    endpoints = Endpoints.free()
    with serve(small_repository, *ports(endpoints)) as process:
        assert f"gRPC 127.0.0.1:{endpoints.grpc}" in wait_until_ready(process)
        started = children(process)
        for protocol in ("grpc", "http"):
            address = f"{protocol}://127.0.0.1:{endpoints.ports[protocol]}"
            with Classifier(address, model="birds") as classifier:
                assert classifier.image(SAMPLE).predictions
        assert requests.get(f"http://127.0.0.1:{endpoints.metrics}/metrics", timeout=5).ok
        process.send_signal(number)
        assert process.wait(timeout=60) == 0
    assert alive(started) == []


def test_a_signal_while_it_starts_ends_it_too(small_repository: Path) -> None:
    with serve(small_repository, *ports(Endpoints.free())) as process:
        assert process.stdout
        process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0


def test_under_nohup_a_closing_terminal_does_not_end_it(small_repository: Path) -> None:
    with serve(small_repository, *ports(Endpoints.free()), prefix=["nohup"]) as process:
        wait_until_ready(process)
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        assert children(process)


def test_arguments_after_two_dashes_reach_tritonserver(small_repository: Path) -> None:
    endpoints = Endpoints.free()
    restricted = "--http-restricted-api=model-repository:admin-key=secret"
    with serve(small_repository, *ports(endpoints), "--", restricted) as process:
        wait_until_ready(process)
        index = f"http://127.0.0.1:{endpoints.http}/v2/repository/index"
        assert requests.post(index, timeout=5).status_code == 403
        assert requests.post(index, headers={"admin-key": "secret"}, timeout=5).ok


def test_only_the_models_that_are_named_are_loaded(repository: Path) -> None:
    with EmbeddedServer(repository, models=["birds"], endpoints=Endpoints.free()) as server:
        for protocol in ("grpc", "http"):
            with Classifier(url(server, protocol), model="mobilenetv2") as classifier:
                listed = {model.name: model for model in classifier.models()}
                assert [name for name, model in listed.items() if model.ready] == ["birds"]
                assert not listed["mobilenetv2"].ready
                assert listed["mobilenetv2"].reason
                with pytest.raises(ModelNotFound, match="mobilenetv2"):
                    classifier.image(SAMPLE)


@pytest.mark.parametrize("protocol", ["http", "grpc", "metrics"])
def test_a_port_in_use_is_one_clear_line(small_repository: Path, protocol: str) -> None:
    endpoints = Endpoints.free()
    with socket.create_server(("127.0.0.1", endpoints.ports[protocol])):
        line = failure(small_repository, *ports(endpoints))
    assert f"{endpoints.ports[protocol]}: Address already in use" in line
    assert f"--{protocol}-port" in line


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_a_repository_without_a_model_is_one_clear_line(tmp_path: Path, folder: str) -> None:
    line = failure(tmp_path / folder)
    assert "holds no model; make one: python -m scripts.build_repository" in line


def test_a_model_that_is_not_in_the_repository_is_one_clear_line(small_repository: Path) -> None:
    line = failure(small_repository, *ports(Endpoints.free()), "--models", "planes")
    assert "'planes': model not found" in line


@pytest.fixture
def broken(small_repository: Path, tmp_path: Path) -> Path:
    """A repository that a test may break."""
    return Path(shutil.copytree(small_repository, tmp_path / "broken"))


def test_a_model_file_that_does_not_load_is_one_clear_line(broken: Path) -> None:
    (broken / "birds_onnx" / "1" / "model.onnx").write_bytes(b"no graph")
    line = failure(broken, *ports(Endpoints.free()))
    assert "broken: failed to load 'birds_onnx'" in line
    assert "INVALID_PROTOBUF" in line


def test_a_configuration_that_does_not_parse_is_one_clear_line(broken: Path) -> None:
    (broken / "birds" / "config.pbtxt").write_text("no configuration")
    assert "failed to read text proto" in failure(broken, *ports(Endpoints.free()))


def failure(repository: Path, *arguments: str) -> str:
    """Run the command until it fails, and return the one line that it says."""
    with serve(repository, *arguments) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = said.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--", "--nonsense"], "unrecognized option '--nonsense'"),
        (["--grpc-port=18000", "--http-port=18000"], "cannot listen to HTTP requests and GRPC"),
        (["--address=203.0.113.1"], "Cannot assign requested address"),
        (["--address=nohost.invalid"], "Name or service not known"),
    ],
)
def test_options_that_triton_does_not_take_are_one_clear_line(
    small_repository: Path, options: list[str], reason: str
) -> None:
    assert reason in failure(small_repository, *ports(Endpoints.free()), *options)


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_what_is_no_port_is_wrong_usage(small_repository: Path, port: str) -> None:
    with serve(small_repository, f"--http-port={port}") as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "argument --http-port" in said


def test_a_path_with_a_space_is_served(small_repository: Path, tmp_path: Path) -> None:
    spaced = tmp_path / "my models [1]"
    shutil.copytree(small_repository, spaced)
    with (
        EmbeddedServer(spaced, endpoints=Endpoints.free(), ready_seconds=60) as server,
        Classifier(url(server, "grpc"), model="birds") as classifier,
    ):
        assert classifier.image(SAMPLE).predictions


def test_an_address_may_be_a_name(small_repository: Path) -> None:
    with (
        EmbeddedServer(small_repository, endpoints=Endpoints.free("localhost")) as server,
        Classifier(url(server, "http"), model="birds") as classifier,
    ):
        assert classifier.image(SAMPLE).predictions


def shared_memory(prefix: str) -> list[Path]:
    """The regions through which a server's Python backend processes exchange tensors."""
    return list(Path("/dev/shm").glob(f"{prefix}*"))


def test_a_server_that_dies_is_reported_and_leaves_nothing(small_repository: Path) -> None:
    with serve(small_repository, *ports(Endpoints.free())) as process:
        wait_until_ready(process)
        started = children(process)
        tritonserver = next(child for child in started if child.name() == "tritonserver")
        # Other Tritons on this machine use other prefixes.
        command = " ".join(tritonserver.cmdline())
        (prefix,) = set(re.findall(r"shm-region-prefix-name=(\S+)", command))
        assert shared_memory(prefix)
        tritonserver.kill()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said == "error: tritonserver ended by itself, with code -9\n"
    assert alive(started) == []
    assert shared_memory(prefix) == []


def test_the_repository_stays_as_it_was_built(small_repository: Path) -> None:
    before = sorted(small_repository.rglob("*"))
    with EmbeddedServer(small_repository, endpoints=Endpoints.free()):
        pass
    assert sorted(small_repository.rglob("*")) == before


def test_without_the_pip_package_the_error_says_how_to_install_it(
    small_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ServerError, match=r"pip install '\.\[serve\]'"):
        EmbeddedServer(small_repository, endpoints=Endpoints.free()).start()


def test_a_python_without_its_shared_library_is_told_which_package_has_it(
    small_repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sysconfig.get_config_var", lambda _: str(tmp_path))
    monkeypatch.setattr("sys.base_prefix", str(tmp_path))
    with pytest.raises(ServerError, match=r"apt-get install libpython3\.\d+"):
        EmbeddedServer(small_repository, endpoints=Endpoints.free()).start()
