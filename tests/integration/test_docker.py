"""The commands of docker-compose.yml without Docker: build, server and health check."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import onnx
import psutil
import pytest
import requests

from client import SAMPLE, Classifier
from scripts import build_repository
from scripts.container import health
from scripts.embedded import Endpoints
from scripts.embedded.access import key_headers
from scripts.embedded.installation import find
from scripts.embedded.server import BACKENDS, PREFIX_OPTION
from tests import compose, namespaces
from tests.compose import arguments, service
from tests.graphs import FLEXIBLE, classifier
from tests.integration.conftest import HASTE, PROTOCOLS

ADMIN = key_headers("correct-horse-battery-staple")
# As in a container, only /tmp can be written to. The volume is at /mnt here. Mounts of the host
# that cannot be changed stay as they are.
READ_ONLY = """
mount --bind {volume} /mnt && mount --bind /tmp /tmp &&
for folder in $(awk '$2 !~ "^/(dev|proc|sys|tmp)(/|$)" {{ print $2 }}' /proc/mounts); do
    mount -o remount,ro,bind "$folder" || true
done 2>/dev/null
! touch /probe /root/probe /mnt/probe 2>/dev/null"""


def build(volume: Path, *words: str) -> None:
    """Run the build service's command line, with the volume replaced by a folder."""
    _python, _option, _module, *options = (word.replace("/models", str(volume)) for word in words)
    assert build_repository.main(options) == 0


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume to which `docker compose run` added a model before `docker compose up`."""
    folder = tmp_path_factory.mktemp("docker")
    volume = folder / "models"
    volume.mkdir()
    onnx.save(classifier(FLEXIBLE), folder / "birds.onnx")
    (folder / "birds.txt").write_text("".join(f"bird {number}\n" for number in range(10)))
    environment = {"MODELS": "mobilenetv2", "WEIGHTS": "synthetic", "CORES": "1"}
    fixed = service("build-cpu", **environment)["entrypoint"].split()
    own = ["--onnx", str(folder / "birds.onnx"), "--labels", str(folder / "birds.txt")]
    build(volume, *fixed, *own, "--name", "birds")
    build(volume, *fixed, "--models", "resnet18_v1", "--weights", "synthetic")
    build(volume, *arguments("build-cpu", **environment))
    return volume


@dataclass(frozen=True)
class Container:
    """The processes of a container, without one: its server and its health checks."""

    server: psutil.Popen
    endpoints: Endpoints
    volume: Path
    app: Path
    environment: Mapping[str, str]

    def check(self) -> tuple[int, str]:
        """Run the health check; return its exit code and what it says."""
        _, _python, *words = service("triton-cpu")["healthcheck"]["test"]
        words = [word.replace("/models", str(self.volume)) for word in words]
        result = subprocess.run(
            [sys.executable, *words, "--http", self.endpoints.at("http")],
            cwd=self.app,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.stderr == ""
        return result.returncode, result.stdout

    def lose_patience(self) -> None:
        """Move the time from which a failed check ends the server to the past."""
        os.utime(Path(self.environment["TMPDIR"], health.STATE.name), (0, 0))


@contextmanager
def running(volume: Path, folder: Path) -> Iterator[Container]:
    """Run the server's command line with the embedded Triton, on a read-only file system."""
    app, temporary, key = folder / "app", folder / "tmp", folder / "admin.key"
    temporary.mkdir()
    key.write_text(ADMIN["admin-key"])
    compose.install_server(app)
    installation = find()
    installation.copy_backends(folder / "backends")
    at = Endpoints.free()
    replaced = {
        "python3": sys.executable,
        "tritonserver": str(installation.executable),
        "/run/secrets/admin_key": str(key),
        "/models/repository": "/mnt/repository",
        "--model-repository=/models/repository": "--model-repository=/mnt/repository",
    }
    # Triton 24.10 lacks this option.
    words = [word for word in arguments("triton-cpu") if "--http-max-input-size" not in word]
    prefix = f"{folder.name}-"
    command = namespaces.inside(
        READ_ONLY.format(volume=volume),
        *(replaced.get(word, word) for word in words),
        f"--backend-directory={folder / 'backends'}",
        *(f"--backend-config={name},{PREFIX_OPTION}={prefix}" for name in BACKENDS),
        *(f"--{protocol}-address=127.0.0.1" for protocol in at.ports),
        *(f"--{protocol}-port={port}" for protocol, port in at.ports.items()),
        *HASTE,
    )
    environment = {**installation.environment(), "TMPDIR": str(temporary)}
    with (folder / "log").open("wb") as log:
        server = psutil.Popen(
            command, cwd=app, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    container = Container(server, at, volume, app, environment)
    try:
        deadline = time.monotonic() + 120
        while container.check()[0]:
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield container
    finally:
        # The end of a container ends all its processes and frees its shared memory.
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(60)
        for region in Path("/dev/shm").glob(f"{prefix}*"):
            region.unlink()


@pytest.fixture(scope="module")
def container(volume: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with running(volume, tmp_path_factory.mktemp("container")) as container:
        yield container


def test_pruning_keeps_ones_own_model(volume: Path) -> None:
    manifest = json.loads((volume / "repository" / "manifest.json").read_text())
    assert set(manifest["models"]) == {"birds", "mobilenetv2"}
    assert not (volume / "repository" / "resnet18_v1").exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("model", "label"), [("birds", "bird "), ("mobilenetv2", "n")])
def test_zoo_model_and_ones_own_are_served_side_by_side(
    container: Container, protocol: str, model: str, label: str
) -> None:
    url = f"{protocol}://{container.endpoints.at(protocol)}"
    with Classifier(url, model=model) as classify:
        assert classify.image(SAMPLE).top.label.startswith(label)


def test_restricted_apis_require_the_key_of_the_secret(container: Container) -> None:
    index = f"http://{container.endpoints.at('http')}/v2/repository/index"
    assert requests.post(index, timeout=5).status_code == 403
    assert requests.post(index, headers=ADMIN, timeout=5).ok


def test_metrics_have_latency_quantiles(container: Container) -> None:
    url = f"http://{container.endpoints.at('metrics')}/metrics"
    assert (
        'nv_inference_request_summary_us{model="mobilenetv2",version="1",quantile="0.99"}'
        in requests.get(url, timeout=5).text
    )


def test_each_health_check_asks_a_classifier(container: Container) -> None:
    def completed() -> int:
        url = f"http://{container.endpoints.at('http')}/v2/models/stats"
        models = requests.get(url, timeout=5).json()["model_stats"]
        counts = {each["name"]: each["inference_stats"]["success"]["count"] for each in models}
        return int(counts["birds"] + counts["mobilenetv2"])

    before = completed()
    assert [container.check() for _ in range(3)] == [(0, "")] * 3
    assert completed() == before + 3


def test_a_server_that_lost_a_process_is_unhealthy_and_ended_in_the_end(
    volume: Path, tmp_path: Path
) -> None:
    with running(volume, tmp_path) as container:
        for stub in container.server.children():
            if "postprocess" in " ".join(stub.cmdline()):
                stub.kill()
        exit_code, why = container.check()
        assert exit_code == 1
        assert "is not healthy" in why
        assert container.server.poll() is None
        container.lose_patience()
        assert container.check()[0] == 1
        assert container.server.wait(10) == -signal.SIGKILL


def test_a_server_that_hangs_is_ended(volume: Path, tmp_path: Path) -> None:
    with running(volume, tmp_path) as container:
        container.server.suspend()
        container.lose_patience()
        assert container.check() == (1, "TimeoutError: timed out\n")
        assert container.server.wait(10) == -signal.SIGKILL


def test_the_start_fails_with_one_clear_line_for_an_empty_key(tmp_path: Path) -> None:
    app, key = tmp_path / "app", tmp_path / "admin.key"
    compose.install_server(app)
    key.touch()
    command = [sys.executable, "-m", "scripts.container.serve", "--admin-key-file", str(key)]
    command += ["--model-repository", str(tmp_path)]
    result = subprocess.run(
        [*command, "--", "true"], cwd=app, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {key} must hold the administrator's key")
    assert result.stderr.count("\n") == 1
