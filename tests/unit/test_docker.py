"""The Dockerfile and docker-compose.yml are valid, restrictive, and match the files that they use.

These tests need no container engine.
"""

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts import build_repository, engine_options
from scripts.container import health
from scripts.container import serve as container_serve
from scripts.embedded.installation import GLIBC_TUNABLES
from scripts.repository import tensorrt
from tests import compose
from tests.compose import DOCKERFILE, arguments, service
from tests.conftest import ROOT
from tests.unit.test_layout import imports, modules_after

BUILDERS = ["build", "build-cpu"]
SERVERS = ["triton", "triton-cpu"]
SERVICES = [*BUILDERS, *SERVERS]


def dockerfile_lines(pattern: str) -> list[str]:
    return re.findall(f"^{pattern}$", DOCKERFILE.read_text(), flags=re.MULTILINE)


def validate(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)


def lint(dockerfile: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("hadolint")), "--failure-threshold", "style"]
    command += ["--disable-ignore-pragma", str(dockerfile)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def copied_paths() -> list[Path]:
    """Return the paths that the Dockerfile copies from the build context."""
    return [path for stage in ("builder", "server") for path, _ in compose.copies(stage)]


def is_in_context(path: str) -> bool:
    """Apply .dockerignore as Docker does: the last pattern that matches a path or a parent wins."""
    included = True
    for line in (ROOT / ".dockerignore").read_text().split():
        glob = re.escape(line.removeprefix("!"))
        glob = glob.replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{glob}(/.*)?", path):
            included = line.startswith("!")
    return included


def pins(lock: str) -> dict[str, str]:
    """Return the versions that a lock file pins for the Python of the images."""
    images = {"python_version": "3.12", "python_full_version": "3.12.0", "sys_platform": "linux"}
    lines = re.findall(r"(?m)^[\w.-]+(?:\[.+\])?==[^\\\n]+", (ROOT / lock).read_text())
    requirements = [Requirement(line.strip()) for line in lines]
    return {
        requirement.name: str(requirement.specifier)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate(images)
    }


def test_compose_file_follows_the_compose_specification() -> None:
    result = validate(compose.FILE)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("shm_size: ", "shm_sise: "),
        ("interval: 10s", "interval: 10"),
        ("condition: service_completed_successfully", "condition: built"),
    ],
)
def test_compose_specification_rejects_an_invalid_file(
    tmp_path: Path, right: str, wrong: str
) -> None:
    broken = tmp_path / compose.FILE.name
    text = compose.FILE.read_text()
    assert right in text
    broken.write_text(text.replace(right, wrong))
    result = validate(broken)
    assert result.returncode == 1
    assert "Schema validation errors" in result.stdout


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"MODELS": "resnet50_v1 mobilenetv2", "WEIGHTS": "synthetic", "TAG": "1.2.3", "GPU": "all"},
        {"CORES": "4", "QUEUE": "16", "OPTIMIZE": "latency", "TRITON_ARGS": "--log-verbose=1 --x"},
        {"ENGINE": "openvino", "PRECISION": "int8", "CALIBRATION": "./photos"},
    ],
)
def test_docker_compose_reads_the_file_as_these_tests_do(environment: dict[str, str]) -> None:
    compose_command = ["docker", "compose"]
    try:
        subprocess.run([*compose_command, "version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("docker compose is not installed")
    command = [*compose_command, "--profile", "*", "config"]
    result = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, b"")
    read = yaml.safe_load(result.stdout)["services"]
    assert set(read) == set(SERVICES)
    for name, settings in read.items():
        expected = service(name, **environment)
        words = [*settings.get("entrypoint", []), *settings["command"]]
        assert words == arguments(name, **environment)
        assert settings["image"] == expected["image"]
        assert settings.get("labels") == expected.get("labels")
        assert str(settings.get("cpus", 0)) == expected["cpus"]


def test_dockerfile_passes_hadolint_with_all_rules_enabled() -> None:
    result = lint(DOCKERFILE)
    assert result.returncode == 0, result.stdout


def test_hadolint_rejects_an_image_without_a_tag(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text(DOCKERFILE.read_text().replace("FROM ${PYTHON_IMAGE} ", "FROM python "))
    assert "DL3006" in lint(broken).stdout


def test_base_images_have_a_version_tag_and_can_be_replaced() -> None:
    images = dict(line.split("=") for line in dockerfile_lines(r"ARG (\S+)"))
    assert re.fullmatch(r"python:3\.\d+-slim", images["PYTHON_IMAGE"])
    assert re.fullmatch(r"nvcr\.io/nvidia/tritonserver:\d\d\.\d\d-py3", images["TRITON_IMAGE"])
    assert dockerfile_lines(r"FROM (\S+) AS \S+") == ["${PYTHON_IMAGE}", "${TRITON_IMAGE}"]
    for name, argument in [("build", "PYTHON_IMAGE"), ("triton", "TRITON_IMAGE")]:
        assert service(name)["build"]["args"][argument] is None  # taken from the environment


def test_each_service_builds_a_stage_of_the_dockerfile() -> None:
    stages = dockerfile_lines(r"FROM \S+ AS (\S+)")
    targets = {name: service(name)["build"]["target"] for name in SERVICES}
    assert targets == dict.fromkeys(BUILDERS, "builder") | dict.fromkeys(SERVERS, "server")
    assert set(targets.values()) == set(stages)


@pytest.mark.parametrize("name", SERVICES)
def test_compose_rebuilds_its_tagged_image_when_the_sources_change(name: str) -> None:
    settings = service(name, TAG="1.2.3")
    assert settings["image"] == f"triton-imagenet/{settings['build']['target']}:1.2.3"
    assert service(name)["image"].endswith(":latest")
    assert settings["pull_policy"] == "build"


def test_every_stage_ends_as_an_unprivileged_user() -> None:
    stages = re.split(r"(?m)^FROM ", DOCKERFILE.read_text())[1:]
    users = [re.findall(r"(?m)^USER (\S+)$", stage)[-1:] for stage in stages]
    assert users == [["1000:1000"]] * len(stages)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_runs_unprivileged_on_a_read_only_file_system(name: str) -> None:
    settings = service(name)
    assert settings["user"] == "1000:1000"
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert settings["read_only"] is True
    assert settings["tmpfs"] == [f"/tmp:size={'2g' if name in BUILDERS else '64m'}"]


@pytest.mark.parametrize("name", SERVICES)
def test_cpu_memory_and_process_limits_come_from_the_environment(name: str) -> None:
    keys = ("cpus", "mem_limit", "pids_limit")
    limited = service(name, CORES="4", MEMORY="8g", PIDS="512")
    assert [limited[key] for key in keys] == ["4", "8g", "512"]
    assert [service(name)[key] for key in keys] == ["0", "32g", "8192"]


@pytest.mark.parametrize("name", SERVICES)
def test_logs_are_rotated(name: str) -> None:
    assert service(name)["logging"] == {
        "driver": "json-file",
        "options": {"max-size": "10m", "max-file": "5"},
    }


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "0"), ({"GPU": "2"}, "2"), ({"GPU": "all"}, "all"), ({"GPU": "GPU-8f1c"}, "GPU-8f1c")],
)
def test_gpu_service_reserves_the_selected_gpu(environment: dict[str, str], expected: str) -> None:
    (device,) = service("triton", **environment)["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "device_ids": [expected], "capabilities": ["gpu"]}


def test_cpu_service_is_the_gpu_service_without_a_gpu() -> None:
    gpu, cpu = (service(name) for name in SERVERS)
    del gpu["deploy"], gpu["depends_on"], cpu["depends_on"]
    assert gpu["volumes"].pop() == "engines:/engines"
    del gpu["healthcheck"]["start_period"], cpu["healthcheck"]["start_period"]
    assert (gpu.pop("profiles"), cpu.pop("profiles")) == (["gpu"], ["cpu"])
    assert cpu == gpu


def test_compose_uses_the_gpu_profile_by_default() -> None:
    settings = [line for line in (ROOT / ".env").read_text().splitlines() if line[:1] != "#"]
    assert settings == ["COMPOSE_PROFILES=gpu"]


def parse(name: str, **environment: str) -> Any:
    """Parse a builder's command line with the parser of the command that it runs."""
    python, option, module, *words = arguments(name, **environment)
    assert (python, option, module) == ("python", "-m", "scripts.build_repository")
    return build_repository.parser().parse_args(words)


@pytest.mark.parametrize(("name", "device"), [("build", "gpu"), ("build-cpu", "cpu")])
def test_repository_is_built_for_the_device_that_serves_it(name: str, device: str) -> None:
    assert service(name)["profiles"] == [device]
    options = parse(name)
    assert options.device == device
    assert (options.models, options.weights, options.prune) == (["all"], "zoo", True)
    assert options.output == Path("/models/repository")


@pytest.mark.parametrize("name", BUILDERS)
def test_build_options_come_from_the_environment(name: str) -> None:
    chosen = {"MODELS": "resnet50_v1 mobilenetv2", "WEIGHTS": "synthetic"}
    options = parse(name, **chosen, CORES="4", QUEUE="16", OPTIMIZE="latency")
    assert (options.models, options.weights) == (["resnet50_v1", "mobilenetv2"], "synthetic")
    assert (options.cores, options.queue) == (4, 16)
    assert options.optimize == ("latency" if name == "build-cpu" else "throughput")  # CPU only


@pytest.mark.parametrize(
    ("environment", "engine", "precision", "calibration"),
    [
        ({}, None, "fp32", None),
        ({"ENGINE": "openvino"}, "openvino", "fp32", None),
        ({"PRECISION": "bf16"}, None, "bf16", None),
        (
            {"ENGINE": "openvino", "PRECISION": "int8", "CALIBRATION": "./photos"},
            "openvino",
            "int8",
            Path("/calibration"),
        ),
    ],
)
def test_engine_and_precision_of_the_cpu_service_come_from_the_environment(
    environment: dict[str, str], engine: str | None, precision: str, calibration: Path | None
) -> None:
    options = parse("build-cpu", **environment)
    assert (options.engine, options.precision) == (engine, precision)
    assert options.calibration == calibration


def test_engine_of_the_gpu_service_comes_from_the_environment() -> None:
    assert parse("build").engine is None
    options = parse("build", ENGINE="tensorrt", PRECISION="fp16")
    assert (options.engine, options.precision) == ("tensorrt", "fp16")
    engine_options.check(options)


@pytest.mark.parametrize("name", BUILDERS)
def test_each_build_takes_the_precision_of_the_environment(name: str) -> None:
    assert parse(name).precision == "fp32"
    options = parse(name, PRECISION="fp16", CALIBRATION="./photos")
    assert (options.precision, options.calibration) == ("fp16", Path("/calibration"))


@pytest.mark.parametrize("name", BUILDERS)
def test_calibration_images_are_mounted_read_only(name: str) -> None:
    assert "./photos:/calibration:ro" in service(name, CALIBRATION="./photos")["volumes"]
    assert "/dev/null:/calibration:ro" in service(name)["volumes"]


@pytest.mark.parametrize("name", BUILDERS)
def test_compose_run_replaces_only_the_choice_of_models(name: str) -> None:
    assert set(shlex.split(service(name)["command"])) >= {"--models", "--weights", "--prune"}
    fixed = shlex.split(service(name)["entrypoint"])[3:]
    options = build_repository.parser().parse_args([*fixed, "--onnx", "/own/birds.onnx"])
    assert (options.models, options.prune) == (None, False)
    assert (options.device, options.output) == (
        service(name)["profiles"][0],
        Path("/models/repository"),
    )


@pytest.mark.parametrize(("name", "builder"), [*zip(SERVERS, BUILDERS, strict=True)])
def test_triton_starts_when_the_build_has_succeeded(name: str, builder: str) -> None:
    assert service(name)["depends_on"] == {builder: {"condition": "service_completed_successfully"}}


@pytest.mark.parametrize("name", SERVERS)
def test_memory_allocator_settings_match_the_embedded_server(name: str) -> None:
    assert service(name)["environment"]["GLIBC_TUNABLES"] == GLIBC_TUNABLES


@pytest.mark.parametrize("name", SERVERS)
def test_triton_cannot_write_to_the_repository(name: str) -> None:
    settings = service(name)
    assert settings["volumes"][0] == "models:/models:ro"
    assert settings["environment"]["PYTHONDONTWRITEBYTECODE"] == "1"
    assert "--model-repository=/models/repository" in arguments(name)


@pytest.mark.parametrize("name", SERVERS)
def test_a_folder_on_the_host_replaces_the_volume(name: str) -> None:
    assert service(name, REPOSITORY="./models")["volumes"][0] == "./models:/models:ro"


@pytest.mark.parametrize("name", SERVERS)
def test_further_triton_options_come_from_the_environment(name: str) -> None:
    options = "--http-restricted-api=inference:key=SECRET --log-verbose=1"
    assert arguments(name, TRITON_ARGS=options) == [*arguments(name), *options.split()]


@pytest.mark.parametrize("name", SERVERS)
def test_large_requests_are_rejected_over_http(name: str) -> None:
    assert f"--http-max-input-size={64 << 20}" in arguments(name)
    assert "--http-max-input-size=9" in arguments(name, MAX_REQUEST="9")


@pytest.mark.parametrize("name", SERVERS)
def test_the_administrators_key_is_a_secret_without_a_default(name: str) -> None:
    settings = service(name, ADMIN_KEY_FILE="./admin.key")
    assert settings["secrets"] == ["admin_key"]
    assert not [
        word for word in arguments(name, ADMIN_KEY_FILE="./admin.key") if "admin.key" in word
    ]
    options = container_serve.parser().parse_args(arguments(name)[3:])
    assert arguments(name)[:3] == ["python3", "-m", "scripts.container.serve"]
    assert options.admin_key_file == Path("/run/secrets/admin_key")
    assert options.model_repository == Path("/models/repository")
    assert options.command[0] == "tritonserver"
    assert compose.secret("admin_key", ADMIN_KEY_FILE="./admin.key") == {"file": "./admin.key"}
    assert compose.secret("admin_key") == {"file": "/dev/null"}


def test_server_image_starts_with_the_standard_library_only(tmp_path: Path) -> None:
    compose.install_server(tmp_path)
    for module in ("serve", "health"):
        command = [sys.executable, "-S", "-m", f"scripts.container.{module}", "--help"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert f"usage: python3 -m scripts.container.{module}" in result.stdout


@pytest.mark.parametrize("name", SERVERS)
def test_client_shared_memory_is_off_by_default(name: str) -> None:
    assert not [word for word in arguments(name) if "client-shm" in word]
    assert service(name)["ipc"] == "private"
    assert service(name, IPC="host")["ipc"] == "host"


@pytest.mark.parametrize(
    ("name", "folders"), [("build", ["/cache", "/models"]), ("triton", [tensorrt.DEFAULT_FOLDER])]
)
def test_services_own_the_volumes_that_they_write_to(name: str, folders: list[str]) -> None:
    volumes = [volume.split(":") for volume in service(name)["volumes"]]
    targets = [target for _, target, *options in volumes if options != ["ro"]]
    assert sorted(targets) == folders
    owned = dockerfile_lines(r".*install -d -o 1000 -g 1000 (.+)")
    assert " ".join(folders) in owned
    assert dockerfile_lines("ENV .*XDG_CACHE_HOME=/cache")


@pytest.mark.parametrize("name", BUILDERS)
def test_builder_gets_the_download_settings_of_the_environment(name: str) -> None:
    settings = service(name)["environment"]
    assert set(settings) >= {"HF_ENDPOINT", "HF_TOKEN", "HTTPS_PROXY", "NO_PROXY"}
    assert set(settings.values()) == {None}


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize(
    "variable",
    ["MODELS", "WEIGHTS", "OPTIMIZE", "CORES", "QUEUE", "ENGINE", "PRECISION", "CALIBRATION"],
)
def test_triton_is_recreated_when_a_build_option_changes(name: str, variable: str) -> None:
    assert service(name, **{variable: "other"})["labels"] != service(name)["labels"]


@pytest.mark.parametrize("name", SERVERS)
def test_ports_are_published_on_the_loopback_address_by_default(name: str) -> None:
    ports = (8000, 8001, 8002)
    assert service(name)["ports"] == [f"127.0.0.1:{port}:{port}" for port in ports]
    chosen = {"TRITON_ADDRESS": "10.0.0.1", "HTTP_PORT": "1", "GRPC_PORT": "2", "METRICS_PORT": "3"}
    published = ["10.0.0.1:1:8000", "10.0.0.1:2:8001"]
    assert service(name, **chosen)["ports"] == [*published, "127.0.0.1:3:8002"]
    chosen["METRICS_ADDRESS"] = "10.0.0.2"
    assert service(name, **chosen)["ports"] == [*published, "10.0.0.2:3:8002"]


@pytest.mark.parametrize("name", SERVERS)
def test_triton_has_the_memory_settings_that_nvidia_recommends(name: str) -> None:
    settings = service(name)
    assert settings["shm_size"] == "4gb"
    assert service(name, SHM_SIZE="8gb")["shm_size"] == "8gb"
    assert settings["ulimits"] == {"memlock": -1, "stack": 67108864}


def test_health_checks_fit_their_interval_and_deadlines() -> None:
    settings = service("triton")["healthcheck"]
    kind, python, option, module, *words = settings["test"]
    assert (kind, python, option, module) == ("CMD", "python3", "-m", "scripts.container.health")
    assert words == ["--model-repository", "/models/repository"]
    seconds = {key: int(settings[key].rstrip("sm")) for key in ("interval", "timeout")}
    assert seconds["interval"] == health.TURN_SECONDS
    assert seconds["timeout"] > 3 * health.REQUEST_SECONDS  # the requests of one check
    periods = [service(name)["healthcheck"]["start_period"] for name in SERVERS]
    assert periods == [f"{health.ENGINE_SECONDS // 60}m", f"{health.START_SECONDS // 60}m"]


def test_build_context_has_all_files_that_the_dockerfile_copies() -> None:
    sources = copied_paths()
    files = [file for source in sources for file in [source, *source.rglob("*")]]
    needed = [file for file in files if "__pycache__" not in file.parts]
    assert len(sources) == 8
    assert all(file.exists() for file in needed)
    assert [file for file in needed if not is_in_context(str(file.relative_to(ROOT)))] == []


@pytest.mark.parametrize(
    "path",
    [".env", ".git/config", ".venv/bin/python", "README.md", "scripts/__pycache__/demo.pyc"],
)
def test_build_context_has_no_other_files(path: str) -> None:
    assert not is_in_context(path)


@pytest.mark.parametrize("lock", ["docker/build.lock", "docker/steps-cpu.lock"])
def test_images_install_the_versions_that_are_tested(lock: str) -> None:
    tested = pins("requirements.lock")
    image = pins(lock)
    assert image == {name: tested[name] for name in image}


def test_server_image_decodes_on_a_gpu_with_the_versions_that_are_tested_on_a_cpu() -> None:
    tested, image = pins("requirements.lock"), pins("docker/steps-gpu.lock")
    on_gpus_only = image.keys() - tested.keys()
    assert on_gpus_only == {"cupy-cuda13x", "fastrlock", "nvidia-nvjpeg"}
    assert image.items() >= pins("docker/steps-cpu.lock").items()
    assert all(image[name] == tested[name] for name in image.keys() - on_gpus_only)


def test_builder_image_has_every_package_that_the_build_imports() -> None:
    loaded = modules_after("import scripts.build_repository") - {"scripts"}
    own = {name for name in loaded if name.startswith("scripts.")}
    files = [Path(f"{name.replace('.', '/')}.py") for name in own]
    imported = set[str]().union(*(imports(ROOT / file) for file in files if (ROOT / file).exists()))
    # The build also works without the fast resizer.
    packages = imported - sys.stdlib_module_names - {"scripts", "cykooz_resizer"}
    distributions = packages_distributions()
    needed = {canonicalize_name(name) for package in packages for name in distributions[package]}
    assert {"onnx", "huggingface-hub", "rich"} <= needed
    assert needed <= pins("docker/build.lock").keys()


def test_server_image_adds_only_the_image_decoder_and_resizer() -> None:
    assert pins("docker/steps-cpu.lock").keys() == {"cykooz-resizer", "pillow"}


@pytest.mark.parametrize("lock", ["steps-cpu.lock", "steps-gpu.lock"])
def test_server_image_can_be_built_for_arm(lock: str) -> None:
    (line,) = re.findall("cykooz-resizer==.*", (ROOT / "docker" / lock).read_text())
    assert "platform_machine == 'x86_64'" in line  # the only architecture that it has wheels for


def test_the_server_image_does_not_report_its_use() -> None:
    assert dockerfile_lines("ENV (ORT_DISABLE_TELEMETRY=1)")


@pytest.mark.parametrize("lock", ["/tmp/build.lock", '"/tmp/steps-${PREPROCESS}.lock"'])
def test_images_install_only_packages_with_known_hashes(lock: str) -> None:
    assert dockerfile_lines(rf".*pip install .*--require-hashes -r {re.escape(lock)} .*")


def test_documentation_lists_each_variable_with_its_default() -> None:
    text = (ROOT / "docs" / "docker.md").read_text()
    documented = dict(re.findall(r"(?m)^\| `([A-Z_]+)` \| (?:`([^`]*)`|[^|`]+) \|", text))
    file = compose.FILE.read_text()
    defaults = dict(re.findall(r"\$\{([A-Z_]+):-([^${}]*)\}", file))
    without_default = re.findall(r"(?m)^ +([A-Z_]+):$", file)
    assert documented == defaults | dict.fromkeys(without_default, "")
