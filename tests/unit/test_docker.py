"""The container files: valid, safe, and in step with what they copy and pin.

Nothing here needs a container engine; the images themselves are built only where there is one.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from scripts.embedded.installation import GLIBC_TUNABLES
from tests.conftest import ROOT
from tests.web import serving

COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
BUILDERS = ["build", "build-cpu"]
SERVERS = ["triton", "triton-cpu"]


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"][name]
    return found


def dockerfile_lines(pattern: str) -> list[str]:
    return re.findall(f"^{pattern}$", DOCKERFILE.read_text(), flags=re.MULTILINE)


def validate(compose: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*command, str(compose)], capture_output=True, text=True, check=False)


def lint(dockerfile: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("hadolint")), "--failure-threshold", "style"]
    command += ["--disable-ignore-pragma", str(dockerfile)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def copied_paths() -> list[Path]:
    """What the Dockerfile copies out of the build context."""
    words = [line.split() for line in DOCKERFILE.read_text().splitlines()]
    return [ROOT / source for word in words if word[:1] == ["COPY"] for source in word[1:-1]]


def is_in_context(path: str) -> bool:
    """Read .dockerignore as Docker does: the last pattern that matches a path or a parent wins."""
    included = True
    for line in (ROOT / ".dockerignore").read_text().split():
        glob = re.escape(line.removeprefix("!"))
        glob = glob.replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{glob}(/.*)?", path):
            included = line.startswith("!")
    return included


def pins(lock: str) -> dict[str, str]:
    """The versions that a lock file pins for the Python of the images."""
    images = {"python_version": "3.12", "python_full_version": "3.12.0", "sys_platform": "linux"}
    lines = re.findall(r"(?m)^[\w.-]+==[^\\\n]+", (ROOT / lock).read_text())
    requirements = [Requirement(line.strip()) for line in lines]
    return {
        requirement.name: str(requirement.specifier)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate(images)
    }


@contextmanager
def answering(status: int) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that gives every request this status: its address and the paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

    with serving(Handler) as address:
        yield address, asked


def test_the_compose_file_follows_the_compose_specification() -> None:
    result = validate(COMPOSE)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("shm_size: 1gb", "shm_sise: 1gb"),
        ("interval: 10s", "interval: 10"),
        ("condition: service_completed_successfully", "condition: built"),
    ],
)
def test_the_specification_rejects_a_broken_compose_file(
    tmp_path: Path, right: str, wrong: str
) -> None:
    broken = tmp_path / COMPOSE.name
    text = COMPOSE.read_text()
    assert right in text
    broken.write_text(text.replace(right, wrong))
    result = validate(broken)
    assert result.returncode == 1
    assert "Schema validation errors" in result.stdout


def test_the_dockerfile_passes_hadolint_with_every_rule_on() -> None:
    result = lint(DOCKERFILE)
    assert result.returncode == 0, result.stdout


def test_hadolint_rejects_a_dockerfile_without_pinned_images(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text(re.sub(r"(?m)^FROM (\S+):\S+", r"FROM \1", DOCKERFILE.read_text()))
    assert "DL3006" in lint(broken).stdout


def test_triton_is_the_official_image() -> None:
    (image,) = dockerfile_lines(r"FROM (\S+) AS server")
    assert re.fullmatch(r"nvcr\.io/nvidia/tritonserver:\d\d\.\d\d-py3", image)


def test_each_service_builds_a_stage_of_the_dockerfile() -> None:
    stages = dockerfile_lines(r"FROM \S+ AS (\S+)")
    targets = {name: service(name)["build"]["target"] for name in [*BUILDERS, *SERVERS]}
    assert targets == dict.fromkeys(BUILDERS, "builder") | dict.fromkeys(SERVERS, "server")
    assert set(targets.values()) == set(stages)


def test_every_stage_ends_as_an_unprivileged_user() -> None:
    stages = re.split(r"(?m)^FROM ", DOCKERFILE.read_text())[1:]
    users = [re.findall(r"(?m)^USER (\S+)$", stage)[-1:] for stage in stages]
    assert users == [["1000:1000"]] * len(stages)


@pytest.mark.parametrize("name", [*BUILDERS, *SERVERS])
def test_every_service_runs_unprivileged(name: str) -> None:
    settings = service(name)
    assert settings["user"] == "1000:1000"
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]


def test_the_gpu_service_reserves_one_gpu_unless_told_otherwise() -> None:
    (device,) = service("triton")["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "${GPUS:-1}", "capabilities": ["gpu"]}


def test_the_cpu_service_is_the_gpu_service_without_a_gpu() -> None:
    gpu, cpu = (service(name) for name in SERVERS)
    del gpu["deploy"], gpu["depends_on"], cpu["depends_on"]
    assert (gpu.pop("profiles"), cpu.pop("profiles")) == (["gpu"], ["cpu"])
    assert cpu == gpu


def test_plain_compose_serves_on_the_gpu() -> None:
    settings = [line for line in (ROOT / ".env").read_text().splitlines() if line[:1] != "#"]
    assert settings == ["COMPOSE_PROFILES=gpu"]


@pytest.mark.parametrize(("name", "device"), [("build", "gpu"), ("build-cpu", "cpu")])
def test_the_repository_is_built_for_what_serves_it(name: str, device: str) -> None:
    assert service(name)["profiles"] == [device]
    assert f"--device {device}" in service(name)["command"]


@pytest.mark.parametrize(("name", "builder"), [*zip(SERVERS, BUILDERS, strict=True)])
def test_triton_starts_once_the_repository_is_built(name: str, builder: str) -> None:
    assert service(name)["depends_on"] == {builder: {"condition": "service_completed_successfully"}}


@pytest.mark.parametrize("name", SERVERS)
def test_triton_keeps_memory_as_the_embedded_one_does(name: str) -> None:
    assert service(name)["environment"]["GLIBC_TUNABLES"] == GLIBC_TUNABLES


@pytest.mark.parametrize("name", SERVERS)
def test_triton_cannot_write_the_repository_it_serves(name: str) -> None:
    settings = service(name)
    assert settings["volumes"] == ["models:/models:ro"]
    assert settings["environment"]["PYTHONDONTWRITEBYTECODE"] == "1"
    assert "--model-repository=/models" in shlex.split(settings["command"])


def test_the_builder_owns_the_volumes_it_writes() -> None:
    targets = [volume.split(":")[1] for volume in service("build")["volumes"]]
    (owned,) = dockerfile_lines(r".*install -d -o 1000 -g 1000 (.+)")
    assert sorted(targets) == owned.split() == ["/cache", "/models"]
    assert dockerfile_lines("ENV .*XDG_CACHE_HOME=/cache")


def test_several_model_names_reach_the_builder_as_several_arguments() -> None:
    command = service("build")["command"].replace("${MODELS:-all}", "resnet50_v1 mobilenetv2")
    assert shlex.split(command.replace("${WEIGHTS:-zoo}", "zoo")) == [
        *("--models", "resnet50_v1", "mobilenetv2"),
        *("--weights", "zoo", "--device", "gpu", "--output", "/models", "--prune"),
    ]


@pytest.mark.parametrize("name", SERVERS)
def test_another_choice_of_models_recreates_triton(name: str) -> None:
    assert service(name)["labels"] == {"models": "${MODELS:-all} ${WEIGHTS:-zoo}"}


@pytest.mark.parametrize("name", SERVERS)
def test_triton_is_published_to_this_machine_alone_unless_told_otherwise(name: str) -> None:
    published = [f"${{TRITON_ADDRESS:-127.0.0.1}}:{port}:{port}" for port in (8000, 8001, 8002)]
    assert service(name)["ports"] == published


@pytest.mark.parametrize("name", SERVERS)
def test_triton_gets_the_memory_that_nvidia_recommends(name: str) -> None:
    settings = service(name)
    assert settings["shm_size"] == "1gb"
    assert settings["ulimits"] == {"memlock": -1, "stack": 67108864}


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (400, False)])
def test_the_health_check_asks_triton_whether_it_is_ready(status: int, healthy: bool) -> None:
    kind, python, *arguments = service("triton")["healthcheck"]["test"]
    assert (kind, python) == ("CMD", "python3")
    with answering(status) as (address, asked):
        arguments = [word.replace("127.0.0.1:8000", address) for word in arguments]
        # A proxy that does not exist: the check has to go past it.
        environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
        check = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, check=False
        )
    assert asked == ["/v2/health/ready"]
    assert check.returncode == (0 if healthy else 1)


def test_everything_the_dockerfile_copies_is_in_the_build_context() -> None:
    sources = copied_paths()
    files = [file for source in sources for file in [source, *source.rglob("*")]]
    needed = [file for file in files if "__pycache__" not in file.parts]
    assert len(sources) == 3
    assert all(file.exists() for file in needed)
    assert [file for file in needed if not is_in_context(str(file.relative_to(ROOT)))] == []


@pytest.mark.parametrize(
    "path",
    [".env", ".git/config", ".venv/bin/python", "README.md", "scripts/__pycache__/demo.pyc"],
)
def test_nothing_else_is_in_the_build_context(path: str) -> None:
    assert not is_in_context(path)


@pytest.mark.parametrize("lock", ["docker/build.lock", "docker/steps.lock"])
def test_the_images_get_the_versions_that_are_tested(lock: str) -> None:
    tested = pins("requirements.lock")
    image = pins(lock)
    assert image == {name: tested[name] for name in image}


def test_the_server_image_adds_only_what_decodes_and_resizes() -> None:
    assert pins("docker/steps.lock").keys() == {"cykooz-resizer", "pillow"}


def test_the_server_image_can_be_built_for_arm() -> None:
    (line,) = re.findall("cykooz-resizer==.*", (ROOT / "docker" / "steps.lock").read_text())
    assert "platform_machine == 'x86_64'" in line  # where it has wheels


@pytest.mark.parametrize("lock", ["build.lock", "steps.lock"])
def test_the_images_install_only_what_a_lock_file_vouches_for(lock: str) -> None:
    assert dockerfile_lines(rf".*pip install .*--require-hashes -r /tmp/{lock}.*")
