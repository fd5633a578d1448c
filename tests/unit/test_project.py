"""The files for contributors: the workflow, the commit hook and the Makefile."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def job(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"][name]
    return found


def commands(name: str) -> str:
    return "\n".join(step["run"] for step in job(name)["steps"] if "run" in step)


def make(
    *arguments: str, folder: Path = ROOT, environment: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Run make, without the settings of an outer `make test`, and return its output."""
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTEST_ARGS"}
    inherited = {name: value for name, value in os.environ.items() if name not in outer}
    result = subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=inherited | dict(environment),
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout


def validate(workflow: Path) -> subprocess.CompletedProcess[str]:
    schema = ["--builtin-schema", "vendor.github-workflows"]
    command = [sys.executable, "-m", "check_jsonschema", *schema, str(workflow)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_workflow_follows_its_schema() -> None:
    result = validate(WORKFLOW)
    assert result.returncode == 0, result.stdout


def test_schema_rejects_an_invalid_workflow(tmp_path: Path) -> None:
    broken = tmp_path / "ci.yml"
    broken.write_text(WORKFLOW.read_text().replace("runs-on:", "run-on:"))
    assert validate(broken).returncode == 1


def test_workflow_tests_each_supported_python() -> None:
    requires = re.search(r'requires-python = "(.+)"', (ROOT / "pyproject.toml").read_text())
    assert requires
    assert requires[1] == ">=3.10,<3.13"
    assert job("test")["strategy"]["matrix"]["python"] == ["3.10", "3.11", "3.12"]
    assert "make test" in commands("test")


def test_workflow_classifies_with_the_images_that_it_builds() -> None:
    words = commands("images")
    steps = ["docker compose --profile cpu build", "docker compose --profile cpu up --wait"]
    steps.append("triton-classify --model mobilenetv2")
    assert sorted(steps, key=words.index) == steps


@pytest.mark.parametrize("name", yaml.safe_load(WORKFLOW.read_text())["jobs"])
def test_each_job_has_a_time_limit_and_pinned_actions(name: str) -> None:
    actions = [step["uses"] for step in job(name)["steps"] if "uses" in step]
    assert job(name)["timeout-minutes"] <= 90
    assert actions
    assert all(re.search(r"@v\d+$", action) for action in actions)


def test_workflow_may_only_read_the_repository() -> None:
    assert yaml.safe_load(WORKFLOW.read_text())["permissions"] == {"contents": "read"}
    assert all("permissions" not in job(name) for name in ("workflow", "test", "images"))


def test_commit_hook_is_valid_and_runs_make_lint() -> None:
    file = ROOT / ".pre-commit-config.yaml"
    command = [sys.executable, "-m", "pre_commit", "validate-config", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    (repository,) = yaml.safe_load(file.read_text())["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == ["make lint"]


def test_make_help_describes_each_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"(?m)^\.PHONY: (.+)$", makefile)
    output = make("help")
    assert [line.split()[0] for line in output.splitlines()] == phony.split()
    assert all(len(line.split()) > 2 for line in output.splitlines())


def test_make_test_measures_coverage_of_all_tests_only() -> None:
    beside, alone = re.findall(r"-m pytest ([^&)]+)", make("--dry-run", "test"))
    assert beside.startswith("-m 'not alone' --cov ")
    assert alone.strip() == "-m alone --cov --cov-append"
    output = make("--dry-run", "test", environment={"PYTEST_ARGS": "tests/unit -x"})
    assert "-m pytest tests/unit -x) 2>" in output


def test_the_stacks_of_a_crash_are_the_last_that_make_test_prints(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name in ("ruff", "mypy"):
        (commands / name).symlink_to("/bin/true")
    crash = 'import faulthandler; faulthandler.enable(); print("dots"); faulthandler._sigsegv()'
    (commands / "python").write_text(f"#!/bin/sh\nexec {sys.executable} -uc '{crash}'\n")
    (commands / "python").chmod(0o755)
    (tmp_path / "requirements.lock").touch()
    (commands.parent / ".installed").touch()
    result = subprocess.run(
        ["make", "test"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    before, _, after = result.stdout.partition("Fatal Python error: Segmentation fault")
    assert "dots" in before
    assert "most recent call first" in after
    left = {path.name for path in commands.parent.iterdir()}
    assert left == {".installed", "bin"}


@pytest.mark.parametrize("built", [True, False])
def test_make_clean_keeps_the_readme_of_the_model_repository(tmp_path: Path, built: bool) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    repository = tmp_path / "model_repository"
    if built:
        (repository / "birds" / "1").mkdir(parents=True)
        (tmp_path / ".model_repository.staging" / "new").mkdir(parents=True)
        for name in ("README.md", "manifest.json", ".staging", "birds/README.md"):
            (repository / name).touch()
    make("clean", folder=tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    kept = {"model_repository", "model_repository/README.md"} if built else set()
    assert left == {"Makefile"} | kept
