"""The commands of docker-compose.yml without Docker: the build, and Triton on read-only files."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import requests

from client import SAMPLE, Classifier
from scripts import build_repository
from scripts.embedded import Endpoints
from tests import namespaces
from tests.compose import arguments, service
from tests.conftest import ROOT
from tests.graphs import FLEXIBLE, classifier

APIS = "model-repository,shared-memory,trace,logging"
RESTRICTED = (
    f"--http-restricted-api={APIS}:admin-key=SECRET "
    f"--grpc-restricted-protocol={APIS}:admin-key=SECRET"
)
# As in a container, only /tmp can be written to. The repository is at /mnt here. Mounts of the host
# that cannot be changed stay as they are.
READ_ONLY = """
mount --bind {repository} /mnt && mount --bind /tmp /tmp &&
for folder in $(awk '$2 !~ "^/(dev|proc|sys|tmp)(/|$)" {{ print $2 }}' /proc/mounts); do
    mount -o remount,ro,bind "$folder" || true
done 2>/dev/null
! touch /probe /root/probe /mnt/probe 2>/dev/null"""


def build(repository: Path, *words: str) -> None:
    """Run the build service's command line, with the volume replaced by a folder."""
    _python, _option, _module, *options = words
    options = [str(repository) if word == "/models" else word for word in options]
    assert build_repository.main(options) == 0


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository to which `docker compose run` added a model before `docker compose up`."""
    folder = tmp_path_factory.mktemp("docker")
    repository = folder / "models"
    onnx.save(classifier(FLEXIBLE), folder / "birds.onnx")
    (folder / "birds.txt").write_text("".join(f"bird {number}\n" for number in range(10)))
    environment = {"MODELS": "mobilenetv2", "WEIGHTS": "synthetic", "CORES": "1"}
    fixed = service("build-cpu", **environment)["entrypoint"].split()
    own = ["--onnx", str(folder / "birds.onnx"), "--labels", str(folder / "birds.txt")]
    build(repository, *fixed, *own, "--name", "birds")
    build(repository, *fixed, "--models", "resnet18_v1", "--weights", "synthetic")
    build(repository, *arguments("build-cpu", **environment))
    return repository


@pytest.fixture(scope="module")
def endpoints(repository: Path) -> Iterator[Endpoints]:
    """An embedded Triton with the options of the Compose service, on a read-only file system."""
    endpoints = Endpoints.free()
    options = arguments("triton-cpu", TRITON_ARGS=RESTRICTED)
    options.remove("tritonserver")
    options.remove("--model-repository=/models")
    serve = [sys.executable, "-B", "-m", "scripts.serve", "--model-repository=/mnt"]
    ports = [f"--{protocol}-port={port}" for protocol, port in endpoints.ports.items()]
    command = namespaces.inside(
        READ_ONLY.format(repository=repository), *serve, *ports, "--", *options
    )
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert any("ready" in line for line in process.stdout)
        yield endpoints
        process.terminate()
        process.communicate(timeout=60)


def test_pruning_keeps_ones_own_model(repository: Path) -> None:
    manifest = json.loads((repository / "manifest.json").read_text())
    assert set(manifest["models"]) == {"birds", "mobilenetv2"}
    assert not (repository / "resnet18_v1").exists()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize(("model", "label"), [("birds", "bird "), ("mobilenetv2", "n")])
def test_zoo_model_and_ones_own_are_served_side_by_side(
    endpoints: Endpoints, protocol: str, model: str, label: str
) -> None:
    url = f"{protocol}://127.0.0.1:{endpoints.ports[protocol]}"
    with Classifier(url, model=model) as classify:
        assert classify.image(SAMPLE).top.label.startswith(label)


def test_restricted_apis_require_the_header(endpoints: Endpoints) -> None:
    index = f"http://127.0.0.1:{endpoints.http}/v2/repository/index"
    assert requests.post(index, timeout=5).status_code == 403
    assert requests.post(index, headers={"admin-key": "SECRET"}, timeout=5).ok


def test_metrics_have_latency_quantiles(endpoints: Endpoints) -> None:
    metrics = requests.get(f"http://127.0.0.1:{endpoints.metrics}/metrics", timeout=5).text
    assert (
        'nv_inference_request_summary_us{model="mobilenetv2",version="1",quantile="0.99"}'
        in metrics
    )


def test_documentation_shows_the_options_that_are_tested() -> None:
    text = (ROOT / "docs" / "docker.md").read_text()
    assert set(RESTRICTED.split()) <= set(text.replace('"', " ").replace("=--", " --").split())
