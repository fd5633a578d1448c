"""The wheel, installed into an empty environment, classifies with a real Triton."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import client
from scripts.embedded import EmbeddedServer
from tests import distribution
from tests.integration.conftest import url

LIST_PACKAGES = (
    "import importlib.metadata as metadata, json\n"
    "packages = metadata.packages_distributions()\n"
    "ours = [name for name, owners in packages.items() if 'triton-imagenet' in owners]\n"
    "print(json.dumps([ours, sorted({'client', 'scripts'} & packages.keys())]))\n"
)
CLASSIFY = (
    "import sys\n"
    "from triton_imagenet import SAMPLE, Classifier\n"
    "with Classifier(sys.argv[1], model='birds') as classifier:\n"
    "    print(classifier.image(SAMPLE).top.label)\n"
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the commands of an environment that has only the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = distribution.build(folder).wheel
    commands = folder / "venv" / "bin"

    def uv(*arguments: str) -> subprocess.CompletedProcess[str]:
        # In the checkout uv would resolve for the Python that pyproject.toml names.
        command = [str(Path(sys.executable).with_name("uv")), *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    assert uv("venv", "--python", sys.executable, "venv").returncode == 0
    install = ["pip", "install", "--python", str(commands / "python")]
    # Checked separately, so that a wrong requirement of the wheel fails the tests.
    if uv(*install, "--dry-run", "numpy").returncode:
        pytest.skip("cannot install the wheel's dependencies: no package index is reachable")
    installed = uv(*install, str(wheel))
    assert installed.returncode == 0, installed.stderr
    return commands


def run(folder: Path, command: Path, *arguments: str, exit_code: int = 0) -> tuple[str, str]:
    """Run an installed command outside the checkout and return its stdout and stderr."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [str(command), *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == exit_code, result.stderr
    return result.stdout, result.stderr


def test_the_wheel_installs_one_top_level_name(environment: Path, tmp_path: Path) -> None:
    output, _ = run(tmp_path, environment / "python", "-c", LIST_PACKAGES)
    assert json.loads(output) == [["triton_imagenet"], []]


def test_the_installed_command_classifies(
    environment: Path, small_server: EmbeddedServer, protocol: str, tmp_path: Path
) -> None:
    arguments = ["--url", url(small_server, protocol), "--model", "birds", "--output", "json"]
    output, _ = run(tmp_path, environment / "triton-classify", *arguments)
    (result,) = json.loads(output)
    with client.Classifier(url(small_server, protocol), model="birds") as classifier:
        expected = classifier.image(client.SAMPLE).predictions
    assert Path(result["source"]).name == client.SAMPLE.name
    assert [each["label"] for each in result["predictions"]] == [each.label for each in expected]


def test_the_installed_library_classifies(
    environment: Path, small_server: EmbeddedServer, protocol: str, tmp_path: Path
) -> None:
    output, _ = run(tmp_path, environment / "python", "-c", CLASSIFY, url(small_server, protocol))
    with client.Classifier(url(small_server, protocol), model="birds") as classifier:
        assert output == f"{classifier.image(client.SAMPLE).top.label}\n"


def test_the_help_names_the_command_that_was_started(environment: Path, tmp_path: Path) -> None:
    output, _ = run(tmp_path, environment / "triton-classify", "--help")
    assert output.startswith("usage: triton-classify ")
    assert "triton-classify cat.jpg" in output.partition("examples:")[2]
    assert "client.classify" not in output
    output, _ = run(tmp_path, environment / "python", "-m", "triton_imagenet.classify", "--help")
    assert output.startswith("usage: python -m triton_imagenet.classify ")


def test_the_installed_command_prints_the_version(environment: Path, tmp_path: Path) -> None:
    output, _ = run(tmp_path, environment / "triton-classify", "--version")
    assert output == f"triton-imagenet {client.__version__}\n"


def test_the_installed_command_logs_retries(environment: Path, tmp_path: Path) -> None:
    arguments = ["--url", "localhost:9", "--retries", "1", "--verbose"]
    _, log = run(tmp_path, environment / "triton-classify", *arguments, exit_code=3)
    assert "next attempt in" in log
