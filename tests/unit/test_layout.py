"""Which package may import which, and what every command provides."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

COMMANDS = [
    "client.classify",
    "scripts.adapt",
    "scripts.benchmark",
    "scripts.benchmark_client",
    "scripts.build_repository",
    "scripts.demo",
    "scripts.evaluate",
    "scripts.gpu_benchmark",
    "scripts.reload",
    "scripts.serve",
    "scripts.verify",
]
LIBRARIES = [
    "scripts/adaptation",
    "scripts/embedded",
    "scripts/evaluation",
    "scripts/measuring",
    "scripts/repository",
]
STEPS = ROOT / "scripts" / "repository" / "steps"
STEPS_MAY_IMPORT = {"cykooz_resizer", "numpy", "PIL", "triton_python_backend_utils"}


def imports(file: Path) -> set[str]:
    """Return the top-level packages that a file imports, without relative imports."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [
        node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level
    ]
    return {name.partition(".")[0] for name in names}


def test_the_client_does_not_import_the_scripts() -> None:
    assert all("scripts" not in imports(file) for file in (ROOT / "client").rglob("*.py"))


def test_the_client_imports_its_own_modules_by_relative_name() -> None:
    # The wheel contains the same files under another name.
    assert all("client" not in imports(file) for file in (ROOT / "client").rglob("*.py"))


def modules_after(code: str) -> set[str]:
    """Run code in a new process and return the modules that it loaded."""
    code = f"{code}; import sys; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


@pytest.mark.parametrize("step", ["preprocess", "postprocess"])
def test_the_steps_import_only_what_the_triton_image_has(step: str) -> None:
    files = list((STEPS / step).glob("*.py"))
    assert files
    outside = set.union(*map(imports, files)) - set(sys.stdlib_module_names)
    assert outside <= STEPS_MAY_IMPORT


def test_the_steps_load_the_libraries_of_a_gpu_only_to_use_one() -> None:
    loaded = modules_after("import scripts.repository.steps.preprocess.gpu_batches")
    assert not {"cupy", "nvidia.nvimgcodec"} & loaded


@pytest.mark.parametrize(
    ("library", "others"),
    [
        ("repository", set()),
        ("evaluation", {"repository"}),
        ("adaptation", {"evaluation", "repository"}),
    ],
)
def test_a_library_imports_only_those_below_it(library: str, others: set[str]) -> None:
    files = list((ROOT / "scripts" / library).rglob("*.py"))
    code = "\n".join(file.read_text("utf-8") for file in files)
    names = re.findall(r"^\s*from scripts(?:\.| import )(\w+)", code, re.MULTILINE)
    packages = {name for name in names if (ROOT / "scripts" / name).is_dir()}
    assert packages == {library, *others}


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_libraries_do_not_print(library: str) -> None:
    files = list((ROOT / library).rglob("*.py"))
    names = {
        node.func.id
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert files
    assert "print" not in names


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_with_examples(command: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", command, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"python -m {command}" in result.stdout.partition("examples:")[2]


def test_the_help_of_the_client_is_in_its_documentation() -> None:
    environment = {key: value for key, value in os.environ.items() if "TRITON_" not in key}
    result = subprocess.run(
        [sys.executable, "-m", "client.classify", "--help"],
        cwd=ROOT,
        env=environment | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"```text\n{result.stdout}```" in (ROOT / "docs" / "client.md").read_text("utf-8")


def test_the_load_test_imports_only_light_modules_of_the_scripts() -> None:
    files = list((ROOT / "tests" / "load").glob("*.py"))
    assert files
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    used = {
        f"{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scripts")
        for alias in node.names
    }
    modules = {name for name in used if (ROOT / f"{name.replace('.', '/')}.py").exists()}
    modules |= {name.rpartition(".")[0] for name in used - modules}
    assert modules == {
        "scripts.arguments",
        "scripts.measuring.figures",
        "scripts.measuring.pictures",
    }
    loaded = modules_after(f"import {', '.join(modules)}")
    assert not {"scripts.embedded", "scripts.repository", "onnx"} & loaded


def test_evaluating_imports_slow_packages_only_when_they_are_used() -> None:
    slow = {"matplotlib", "pyarrow", "scipy", "sklearn"}
    assert not slow & modules_after("import scripts.evaluate")


def test_the_list_of_commands_is_complete() -> None:
    files = [*(ROOT / "client").glob("*.py"), *(ROOT / "scripts").glob("*.py")]
    found = {f"{file.parent.name}.{file.stem}" for file in files if "__main__" in file.read_text()}
    assert found == set(COMMANDS)


def test_the_client_does_not_import_the_servers_packages() -> None:
    assert not {"onnx", "onnxruntime", "locust", "PIL"} & modules_after("import client")


def test_the_client_is_imported_in_half_a_second_of_cpu_time() -> None:
    clock = "time.process_time()"  # other work on the machine does not count
    code = f"import time; start = {clock}; import client; print({clock} - start)"
    command = [sys.executable, "-c", code]
    seconds = [
        float(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
        for _ in range(5)
    ]
    assert min(seconds) < 0.5


def test_the_client_imports_a_protocol_when_it_is_used() -> None:
    assert not {"grpc", "aiohttp"} & modules_after("import client")
    used = "import client; client.Classifier('{}://localhost')"
    assert {"grpc", "aiohttp"} & modules_after(used.format("grpc")) == {"grpc"}
    assert {"grpc", "aiohttp"} & modules_after(used.format("http")) == {"aiohttp"}


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "scripts.demo"])
def test_every_option_has_a_help_text(command: str) -> None:
    parser = importlib.import_module(command).parser()
    undocumented = [action.dest for action in parser._actions if not action.help]  # noqa: SLF001
    assert undocumented == []
