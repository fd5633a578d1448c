"""`python -m scripts.serve` as a process: ports, signals, restarts and exit codes."""

import base64
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from client import SAMPLE, Classifier, ModelNotFound
from scripts.embedded import Access, EmbeddedServer, Endpoints, ServerError
from scripts.serve import main
from tests.conftest import ROOT
from tests.integration.conftest import HASTE, PROTOCOLS, add_birds, alive, url

MOST_RESTARTS = 2
# The command with shorter waits and fewer restarts.
IMPATIENT = f"""
from scripts import serve
from scripts.embedded import supervisor, triton
supervisor.BACK_OFF_SECONDS = 0.01
supervisor.MAX_RESTARTS = {MOST_RESTARTS}
triton.STALLED_SECONDS = 4
raise SystemExit(serve.main())
"""


Failure = Callable[..., str]


@contextmanager
def serve(
    repository: Path, *arguments: str, prefix: Sequence[str] = (), impatient: bool = False
) -> Iterator["subprocess.Popen[str]"]:
    """Run the command, and end it after the test; arguments after `--` are tritonserver's."""
    module = ["-c", IMPATIENT] if impatient else ["-m", "scripts.serve"]
    command = [sys.executable, *module, f"--model-repository={repository}"]
    haste = HASTE if "--" in arguments else ["--", *HASTE]
    process = subprocess.Popen(
        [*prefix, *command, *arguments, *haste],
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


@pytest.fixture
def failure(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Failure:
    """Run the command in this process until it fails, and return its one line of output."""

    def failure(repository: Path, *arguments: str) -> str:
        assert main([f"--model-repository={repository}", *arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert caplog.messages == []
        return line

    return failure


def ports(endpoints: Endpoints) -> list[str]:
    return [f"--{protocol}-port={port}" for protocol, port in endpoints.ports.items()]


def wait_until_ready(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    output = ""
    while "Ctrl-C" not in output:
        line = process.stdout.readline()
        assert line, output
        output += line
    return output


def children(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """List the embedded Triton and its stubs."""
    (triton,) = (
        child for child in psutil.Process(process.pid).children() if child.name() == "tritonserver"
    )
    found = [triton, *triton.children()]
    assert len(found) > 3
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_readiness_is_printed_and_a_signal_ends_the_server_and_every_child(
    small_repository: Path, number: signal.Signals
) -> None:
    endpoints = Endpoints.free()
    with serve(small_repository, *ports(endpoints)) as process:
        assert f"gRPC 127.0.0.1:{endpoints.grpc}" in wait_until_ready(process)
        started = children(process)
        for protocol in PROTOCOLS:
            address = f"{protocol}://127.0.0.1:{endpoints.ports[protocol]}"
            with Classifier(address, model="birds") as classifier:
                assert classifier.image(SAMPLE).predictions
        assert requests.get(f"http://127.0.0.1:{endpoints.metrics}/metrics", timeout=5).ok
        process.send_signal(number)
        assert process.wait(timeout=60) == 0
    assert alive(started) == []


def test_signal_during_the_start_ends_the_server(small_repository: Path) -> None:
    with serve(small_repository, *ports(Endpoints.free())) as process:
        assert process.stdout
        process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0


def test_closing_the_terminal_does_not_end_the_server_under_nohup(small_repository: Path) -> None:
    with serve(small_repository, *ports(Endpoints.free()), prefix=["nohup"]) as process:
        wait_until_ready(process)
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        assert children(process)


def test_arguments_after_two_dashes_reach_tritonserver(small_repository: Path) -> None:
    endpoints = Endpoints.free()
    restricted = "--http-restricted-api=statistics:key=secret"
    with serve(small_repository, *ports(endpoints), "--", restricted) as process:
        wait_until_ready(process)
        statistics = f"http://127.0.0.1:{endpoints.http}/v2/models/stats"
        assert requests.get(statistics, timeout=5).status_code == 403
        assert requests.get(statistics, headers={"key": "secret"}, timeout=5).ok


@pytest.fixture(scope="module")
def selective(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server of some models, with the administrator's key `secret`."""
    folder = tmp_path_factory.mktemp("selective")
    repository = folder / "model_repository"
    for name in ("birds", "planes"):
        add_birds(repository, folder, name)
    at, access = Endpoints.free(), Access(admin_key="secret")
    with EmbeddedServer(
        repository, models=["birds"], endpoints=at, access=access, arguments=HASTE
    ) as server:
        yield server


def test_only_the_given_models_are_loaded(selective: EmbeddedServer, protocol: str) -> None:
    with Classifier(url(selective, protocol), model="planes") as classifier:
        assert [model.name for model in classifier.models() if model.ready] == ["birds"]
        with pytest.raises(ModelNotFound, match="planes"):
            classifier.image(SAMPLE)


LOAD_REQUEST = {
    "parameters": {
        "config": json.dumps({"name": "evil", "backend": "python"}),
        "file:1/model.py": base64.b64encode(b"class TritonPythonModel: ...").decode(),
    }
}


def test_nobody_can_load_a_model_into_a_server_of_some_models(selective: EmbeddedServer) -> None:
    load = f"{url(selective, 'http')}/v2/repository/models/evil/load"
    assert requests.post(load, json=LOAD_REQUEST, timeout=5).status_code == 403
    refused = requests.post(load, json=LOAD_REQUEST, headers={"admin-key": "secret"}, timeout=5)
    assert not refused.ok
    assert "explicit model load / unload is not allowed" in refused.json()["error"]


STRAY = ["lost+found", ".git", ".ipynb_checkpoints", "..data", ".staging", "half-built"]


def test_folders_that_the_manifest_does_not_list_are_ignored(broken: Path) -> None:
    for name in STRAY:
        (broken / name / "1").mkdir(parents=True)
    (broken / "half-built" / "config.pbtxt").write_text("no configuration")
    with EmbeddedServer(broken, endpoints=Endpoints.free(), arguments=HASTE, verify=True) as server:
        assert classifies(server)


def test_a_file_that_does_not_match_the_manifest_is_one_clear_line(
    broken: Path, failure: Failure
) -> None:
    labels = broken / "birds_postprocess" / "labels.txt"
    labels.write_text(labels.read_text().replace("1", "one", 1))
    line = failure(broken, *ports(Endpoints.free()))
    assert "birds_postprocess/labels.txt does not match its sha256 in the manifest" in line
    with serve(broken, *ports(Endpoints.free()), "--no-verify") as process:
        wait_until_ready(process)


def test_a_repository_without_a_manifest_is_served_with_a_warning(broken: Path) -> None:
    (broken / "manifest.json").unlink()
    with serve(broken, *ports(Endpoints.free()), "--models", "birds") as process:
        wait_until_ready(process)
        assert "has no manifest.json and is not verified" in read_line(process)


@pytest.mark.parametrize("name", ["it's my folder", "/dev/shm"])
def test_the_folder_for_temporary_files_may_need_quotes_or_be_shared_memory(
    small_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir(exist_ok=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
    with EmbeddedServer(small_repository, endpoints=Endpoints.free(), arguments=HASTE) as server:
        assert classifies(server)


def test_invalid_files_are_one_clear_line_in_a_log_with_earlier_failures(
    broken: Path, tmp_path: Path, failure: Failure
) -> None:
    options = [*ports(Endpoints.free()), "--no-verify", f"--log={tmp_path / 'log'}"]
    model = broken / "birds_onnx" / "1" / "model.onnx"
    whole = model.read_bytes()
    model.write_bytes(b"no graph")
    line = failure(broken, *options)
    assert "broken: failed to load 'birds_onnx'" in line
    assert "INVALID_PROTOBUF" in line
    assert "broken/birds_onnx/1/model.onnx failed" in line
    model.write_bytes(whole)
    (broken / "birds" / "config.pbtxt").write_text("no configuration")
    assert "failed to read text proto" in failure(broken, *options)
    assert "unrecognized option" in failure(broken, *options, "--", "--nonsense")


def test_a_server_that_hangs_in_loading_is_started_again(small_repository: Path) -> None:
    with serve(small_repository, *ports(Endpoints.free()), impatient=True) as process:
        loading_stub(process).suspend()
        assert re.search("tritonserver (hangs|ended) .*; starting it again", read_line(process))
        wait_until_ready(process)


def loading_stub(process: "subprocess.Popen[str]") -> psutil.Process:
    """Wait for a Python stub that loads its model."""
    while True:
        for each in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if "birds_pixels" in " ".join(each.cmdline()) and each.num_threads() > 1:
                    return each


def classifies(server: EmbeddedServer) -> bool:
    with Classifier(url(server, "grpc"), model="birds") as classifier:
        return bool(classifier.image(SAMPLE).predictions)


@pytest.mark.parametrize("protocol", ["http", "grpc", "metrics"])
def test_port_in_use_is_one_clear_line(
    small_repository: Path, protocol: str, failure: Failure
) -> None:
    endpoints = Endpoints.free()
    with socket.create_server(("127.0.0.1", endpoints.ports[protocol])):
        line = failure(small_repository, *ports(endpoints))
    assert f"{endpoints.ports[protocol]}: Address already in use" in line
    assert f"--{protocol}-port" in line


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_repository_without_a_model_is_one_clear_line(
    tmp_path: Path, folder: str, failure: Failure
) -> None:
    line = failure(tmp_path / folder)
    assert "contains no model; build one: python -m scripts.build_repository" in line


def test_unknown_model_is_one_clear_line(small_repository: Path, failure: Failure) -> None:
    line = failure(small_repository, *ports(Endpoints.free()), "--models", "planes")
    assert "'planes': model not found" in line


@pytest.fixture
def broken(small_repository: Path, tmp_path: Path) -> Path:
    """A copy of the repository that a test may damage."""
    return Path(shutil.copytree(small_repository, tmp_path / "broken"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--", "--nonsense"], "unrecognized option '--nonsense'"),
        (["--grpc-port=18000", "--http-port=18000"], "cannot listen to HTTP requests and GRPC"),
        (["--address=203.0.113.1"], "Cannot assign requested address"),
        (["--address=nohost.invalid"], "Name or service not known"),
    ],
)
def test_invalid_options_are_one_clear_line(
    small_repository: Path, options: list[str], reason: str, failure: Failure
) -> None:
    assert reason in failure(small_repository, *ports(Endpoints.free()), *options)


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_invalid_port_is_a_usage_error(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([f"--http-port={port}"])
    assert ended.value.code == 2
    assert "argument --http-port" in capsys.readouterr().err


def test_a_path_may_contain_spaces_an_address_may_be_a_host_name_and_no_file_changes(
    small_repository: Path, tmp_path: Path
) -> None:
    spaced = tmp_path / "my models [1]"
    shutil.copytree(small_repository, spaced)
    before = sorted(spaced.rglob("*"))
    at = Endpoints.free("localhost")
    with EmbeddedServer(spaced, endpoints=at, arguments=HASTE, ready_seconds=60) as server:
        for protocol in PROTOCOLS:
            with Classifier(url(server, protocol), model="birds") as classifier:
                assert classifier.image(SAMPLE).predictions
    assert sorted(spaced.rglob("*")) == before


def send_crashing_request(endpoints: Endpoints, protocol: str) -> None:
    """Request the `classification` extension for a STRING output: Triton 2.51 divides by zero."""
    triton: Any = {"grpc": tritonclient.grpc, "http": tritonclient.http}[protocol]
    address = endpoints.at(protocol)
    image = triton.InferInput("IMAGE", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[SAMPLE.read_bytes()]], np.object_))
    labels = triton.InferRequestedOutput("LABEL", class_count=1)
    with (
        triton.InferenceServerClient(address) as client,
        pytest.raises((InferenceServerException, HTTPException, OSError)),
    ):
        client.infer("birds", [image], outputs=[labels])


def read_line(process: "subprocess.Popen[str]") -> str:
    """Read the next line of the command's standard error."""
    assert process.stderr
    return process.stderr.readline()


def test_a_server_that_crashes_is_ready_again_within_seconds_and_clients_with_retries_do_not_notice(
    small_repository: Path,
) -> None:
    endpoints = Endpoints.free()
    with serve(small_repository, *ports(endpoints)) as process, ExitStack() as stack:
        wait_until_ready(process)
        first = children(process)
        classifiers = {
            protocol: stack.enter_context(
                Classifier(f"{protocol}://{endpoints.at(protocol)}", model="birds", retries=20)
            )
            for protocol in PROTOCOLS
        }
        for number, protocol in enumerate(PROTOCOLS, 1):
            before = [each.image(SAMPLE).predictions for each in classifiers.values()]
            start = time.monotonic()
            send_crashing_request(endpoints, protocol)
            assert classifiers[protocol].image(SAMPLE).predictions == before[0]
            line = read_line(process)
            assert line.startswith("tritonserver ended with signal SIGFPE; restarting")
            assert line.endswith(f"({number})\n")
            assert read_line(process).startswith("ready again after ")
            assert time.monotonic() - start < 30
            assert [each.image(SAMPLE).predictions for each in classifiers.values()] == before
        assert alive(first) == []
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0


def shared_memory(process: "subprocess.Popen[str]") -> set[Path]:
    """List the shared memory of the server that the command runs."""
    triton = next(each for each in children(process) if each.name() == "tritonserver")
    prefix = re.search(r"shm-region-prefix-name=(\S+)", " ".join(triton.cmdline()))
    assert prefix
    return set(Path("/dev/shm").glob(f"{prefix[1]}*"))


def test_restarts_are_limited_and_leave_nothing(small_repository: Path) -> None:
    with serve(small_repository, *ports(Endpoints.free()), impatient=True) as process:
        wait_until_ready(process)
        count = len(regions := shared_memory(process))
        assert count
        started = []
        for number in range(1, MOST_RESTARTS + 2):
            started += children(process)
            next(child for child in started[::-1] if child.name() == "tritonserver").kill()
            if number <= MOST_RESTARTS:
                line = read_line(process)
                assert "ended with signal SIGKILL; restarting" in line
                assert f"({number})" in line
                assert "ready again" in read_line(process)
                # The shared memory of the dead servers is removed.
                assert len(shared_memory(process)) == count
                regions |= shared_memory(process)
        _, output = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output == (
        "error: tritonserver ended with signal SIGKILL; giving up after 2 restarts that did not "
        "keep it running for 10 s\n"
    )
    assert alive(started) == []
    assert not [region for region in regions if region.exists()]


def test_ctrl_c_during_a_restart_ends_everything(small_repository: Path) -> None:
    with serve(small_repository, *ports(Endpoints.free())) as process:
        wait_until_ready(process)
        regions = shared_memory(process)
        started = children(process)
        next(child for child in started if child.name() == "tritonserver").kill()
        assert "restarting (1)" in read_line(process)
        started += psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, output = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")
    assert alive(started) == []
    assert not [region for region in regions if region.exists()]


def test_failed_restart_is_reported_and_repeated(broken: Path) -> None:
    with serve(broken, *ports(Endpoints.free()), "--no-verify") as process:
        wait_until_ready(process)
        triton = next(each for each in children(process) if each.name() == "tritonserver")
        model = broken / "birds_onnx" / "1" / "model.onnx"
        whole = model.read_bytes()
        model.write_bytes(b"no graph")
        triton.kill()
        assert "restarting (1)" in read_line(process)
        line = read_line(process)
        assert "failed to load 'birds_onnx'" in line
        assert "restarting in 0.5 s (2)" in line
        model.write_bytes(whole)
        assert "ready again" in read_line(process)


def test_error_without_the_pip_package_says_how_to_install_it(
    small_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ServerError, match="pip install --group serve"):
        EmbeddedServer(small_repository, endpoints=Endpoints.free()).start()


def test_error_without_libpython_names_the_package(
    small_repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sysconfig.get_config_var", lambda _: str(tmp_path))
    monkeypatch.setattr("sys.base_prefix", str(tmp_path))
    with pytest.raises(ServerError, match=r"apt-get install libpython3\.\d+"):
        EmbeddedServer(small_repository, endpoints=Endpoints.free()).start()
