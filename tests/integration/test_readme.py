"""The README's commands, run as they are printed, and its tables, compared with the code."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import client
from scripts.embedded import Endpoints
from scripts.repository.catalog import CATALOG
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text("utf-8")
BLOCK = re.compile(
    r"(?P<not_run><!-- not run: [^\n]+ -->\n)?```(?P<kind>sh|python)\n(?P<text>.*?)```", re.DOTALL
)
BLOCKS = list(BLOCK.finditer(README))


def runnable(kind: str) -> list[str]:
    return [block["text"] for block in BLOCKS if block["kind"] == kind and not block["not_run"]]


def commands() -> list[str]:
    joined = "".join(runnable("sh")).replace("\\\n", " ")
    return [line.partition("  #")[0] for line in joined.splitlines()]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that may be written to: links to this one's files."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("client", "scripts", "tests", "Makefile", "requirements.lock"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def endpoints() -> Endpoints:
    """Free ports to put in place of the README's, which may be taken."""
    return Endpoints.free()


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def running(workplace: Path, endpoints: Endpoints, environment: dict[str, str]) -> Iterator[None]:
    """Build and serve by the README's own commands."""
    build, serve = (
        next(line for line in commands() if f"scripts.{name}" in line)
        for name in ("build_repository", "serve")
    )
    subprocess.run(build, shell=True, cwd=workplace, env=environment, check=True)
    ports = " ".join(f"--{protocol}-port={port}" for protocol, port in endpoints.ports.items())
    process = subprocess.Popen(
        f"exec {serve} {ports}",
        shell=True,
        cwd=workplace,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert any("ready" in line for line in process.stdout)
    yield
    process.terminate()
    assert process.wait(timeout=60) == 0


def at(endpoints: Endpoints, text: str) -> str:
    return text.replace("localhost:8000", f"localhost:{endpoints.http}").replace(
        "localhost:8001", f"localhost:{endpoints.grpc}"
    )


def labels_said(command: list[str], folder: Path, environment: dict[str, str]) -> list[str]:
    """Run a command that succeeds, and find the WordNet ids in what it prints."""
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return re.findall(r"n\d{8} ", result.stdout)


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", README, re.MULTILINE))
def test_make_knows_the_target(target: str) -> None:
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.usefixtures("running", "curl")
@pytest.mark.parametrize(
    "command", [line for line in commands() if re.match(r"curl|python -m client", line)]
)
def test_the_command_classifies_the_photograph(
    command: str, workplace: Path, endpoints: Endpoints, environment: dict[str, str]
) -> None:
    environment = environment | {"TRITON_URL": f"grpc://localhost:{endpoints.grpc}"}
    expected = {0} if "--list-models" in command else {3, 5}
    labels = labels_said(["sh", "-c", at(endpoints, command)], workplace, environment)
    assert len(labels) in expected


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("locust")])
def test_the_load_test_runs(
    command: str, workplace: Path, endpoints: Endpoints, environment: dict[str, str]
) -> None:
    port = str(Endpoints.free().http)
    environment = environment | {
        "LOCUST_MASTER_BIND_HOST": "127.0.0.1",
        "LOCUST_MASTER_BIND_PORT": port,
        "LOCUST_MASTER_NODE_PORT": port,
    }
    result = subprocess.run(
        ["sh", "-c", at(endpoints, command)],
        cwd=workplace,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout
    assert "Aggregated" in result.stdout


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("code", runnable("python"))
def test_the_library_example_runs(
    code: str, workplace: Path, endpoints: Endpoints, environment: dict[str, str]
) -> None:
    code = at(endpoints, code).replace("Classifier(", 'Classifier(protocol="grpc", url=')
    assert len(labels_said([sys.executable, "-c", code], workplace, environment)) == 3


def test_the_help_is_the_commands() -> None:
    environment = {key: value for key, value in os.environ.items() if "TRITON_" not in key}
    said = subprocess.run(
        [sys.executable, "-m", "client.classify", "--help"],
        cwd=ROOT,
        env=environment | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"```text\n{said}```" in README


def test_every_command_is_run_or_says_why_not() -> None:
    assert len(commands()) >= 7
    known = r"make \w+|python -m (client|scripts)\.\w+|curl |locust "
    assert [line for line in commands() if not re.match(known, line)] == []


def test_the_models_table_is_the_catalogue() -> None:
    rows = [
        f"| `{model.name}` | {model.zoo_file} | {model.size / 1e6:.1f} | {model.top1:.2f} "
        f"| {model.top5:.2f} | {model.recipe.resize} / {model.recipe.crop} |"
        for model in CATALOG.values()
    ]
    assert "\n".join(rows) in README


def test_every_error_and_every_verb_of_the_client_is_explained() -> None:
    public = [getattr(client, name) for name in client.__all__]
    errors = [each for each in public if isinstance(each, type) and issubclass(each, Exception)]
    explained = (ROOT / "docs" / "client.md").read_text("utf-8")
    assert [error.__name__ for error in errors if f"`{error.__name__}`" not in explained] == []
    verbs = {name for name in vars(client.Classifier) if not name.startswith("_")} - {"close"}
    assert verbs == {name for name in vars(client.AsyncClassifier) if name[0] != "_"} - {"close"}
    assert [verb for verb in verbs if f"`{verb}(" not in explained] == []


def test_every_link_to_a_file_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)
