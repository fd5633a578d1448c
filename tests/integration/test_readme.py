"""Runs the commands of the README and of docs/, and compares their tables with the code."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import client
from scripts.embedded import Endpoints
from scripts.repository.catalog import CATALOG
from scripts.repository.steps.preprocess.recipe import written
from tests.conftest import ROOT

README = ROOT / "README.md"
PAGES = [README, *sorted(ROOT.glob("[CS]*.md")), *sorted((ROOT / "docs").glob("*.md"))]
MOST_LINES = 250  # of the README
BLOCK = re.compile(
    r"(?P<not_run><!-- not run: [^\n]+ -->\n)?```(?P<kind>sh|python)\n(?P<text>.*?)```", re.DOTALL
)
KNOWN = r"make \w+|python -m (client|scripts)\.\w+|curl |base64 |locust "


@dataclass(frozen=True)
class Example:
    """A command or a Python program in a page."""

    page: Path
    text: str


def examples(kind: str) -> list[Example]:
    """Find the blocks of a kind that are not marked `not run`."""
    return [
        Example(page, block["text"])
        for page in PAGES
        for block in BLOCK.finditer(page.read_text("utf-8"))
        if block["kind"] == kind and not block["not_run"]
    ]


def commands(pattern: str = "") -> list[Example]:
    """Split shell blocks into commands, and keep those that begin with a pattern."""
    lines = [
        Example(block.page, line.partition("  #")[0])
        for block in examples("sh")
        for line in re.sub(r"\\\n|(?<=\|)\n", " ", block.text).splitlines()
    ]
    return [line for line in lines if re.match(pattern, line.text)]


def name_of(example: object) -> str | None:
    if not isinstance(example, Example):
        return None
    first_line = example.text.strip().splitlines()[0]
    return f"{example.page.name}: {first_line}"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that may be written to: links to this one's files."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("client", "scripts", "tests", "Makefile", "requirements.lock"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def endpoints() -> Endpoints:
    """Free ports that replace the documented ones, which may be in use."""
    return Endpoints.free()


@pytest.fixture(scope="module")
def environment(endpoints: Endpoints) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    url = f"grpc://localhost:{endpoints.grpc}"
    return os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1", "TRITON_URL": url}


@pytest.fixture(scope="module")
def running(workplace: Path, endpoints: Endpoints, environment: dict[str, str]) -> Iterator[None]:
    """Build and serve with the README's own commands."""
    build, serve = (
        next(line.text for line in commands(rf"python -m scripts\.{name}"))
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
    for documented, port in zip((8000, 8001, 8002), endpoints.ports.values(), strict=True):
        text = text.replace(f"localhost:{documented}", f"localhost:{port}")
    return text


def briefly(command: str) -> str:
    """Shorten the seconds of a load test."""
    return re.sub(r"(-t|--step-seconds) \d+\b", r"\1 1", command)


def printed_labels(command: list[str], folder: Path, environment: dict[str, str]) -> list[str]:
    """Run a command that succeeds, and find the WordNet ids in its output."""
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return re.findall(r"n\d{8} ", result.stdout)


@pytest.mark.parametrize("command", commands("make"), ids=name_of)
def test_make_has_the_target(command: Example) -> None:
    subprocess.run([*command.text.split()[:2], "--dry-run"], cwd=ROOT, check=True)


@pytest.mark.usefixtures("running", "curl")
@pytest.mark.parametrize("command", commands(r"curl|base64|python -m client"), ids=name_of)
def test_the_command_classifies_the_photograph(
    command: Example, workplace: Path, endpoints: Endpoints, environment: dict[str, str]
) -> None:
    prints_no_label = re.search(r"--(list-models|help|version)|/health/|/metrics", command.text)
    expected = {0} if prints_no_label else {2, 3, 5}
    text = at(endpoints, command.text)
    assert len(printed_labels(["sh", "-c", text], workplace, environment)) in expected


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("command", commands("locust"), ids=name_of)
def test_the_load_test_runs(
    command: Example, workplace: Path, endpoints: Endpoints, environment: dict[str, str]
) -> None:
    port = str(Endpoints.free().http)
    environment = environment | {
        "LOCUST_MASTER_BIND_HOST": "127.0.0.1",
        "LOCUST_MASTER_BIND_PORT": port,
        "LOCUST_MASTER_NODE_PORT": port,
    }
    result = subprocess.run(
        ["sh", "-c", briefly(at(endpoints, command.text))],
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
@pytest.mark.parametrize("command", commands(r"python -m scripts\.evaluate"), ids=name_of)
def test_the_evaluation_compares_with_the_reference(
    command: Example, workplace: Path, environment: dict[str, str]
) -> None:
    result = subprocess.run(
        command.text,
        shell=True,
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"resnet50_v1 +the reference +1 ", result.stdout)


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("code", examples("python"), ids=name_of)
def test_the_library_example_runs(
    code: Example, workplace: Path, endpoints: Endpoints, environment: dict[str, str]
) -> None:
    text = at(endpoints, code.text).replace("Classifier(", 'Classifier(protocol="grpc", url=')
    assert len(printed_labels([sys.executable, "-c", text], workplace, environment)) == 3


def test_every_command_is_run_or_says_why_not() -> None:
    assert len([line for line in commands() if line.page == README]) >= 7
    assert [name_of(line) for line in commands() if not re.match(KNOWN, line.text)] == []


def test_the_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= MOST_LINES


def test_the_models_table_is_the_catalogue() -> None:
    rows = [
        f"| `{model.name}` | {model.zoo_file} | {model.size / 1e6:.1f} | {model.top1:.2f} "
        f"| {model.top5:.2f} | {written(model.recipe.resize)} / {written(model.recipe.crop)} |"
        for model in CATALOG.values()
    ]
    assert "\n".join(rows) in README.read_text("utf-8")


def test_every_error_and_every_method_of_the_client_is_documented() -> None:
    public = [getattr(client, name) for name in client.__all__]
    errors = [each for each in public if isinstance(each, type) and issubclass(each, Exception)]
    documented = (ROOT / "docs" / "client.md").read_text("utf-8")
    assert [error.__name__ for error in errors if f"`{error.__name__}`" not in documented] == []
    methods = {name for name in vars(client.Classifier) if not name.startswith("_")} - {"close"}
    assert methods == {name for name in vars(client.AsyncClassifier) if name[0] != "_"} - {"close"}
    assert [method for method in methods if f"`{method}(" not in documented] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
