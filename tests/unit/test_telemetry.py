"""OpenVINO's Python package reports each import to Google Analytics, unless it is told not to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.unit.test_layout import imports

BUILD = "scripts/repository/graphs/engines.py"
BACKEND = "scripts/embedded/backends/openvino/model.py"
# What makes each of them import OpenVINO.
USES = {
    BUILD: "from scripts.repository.graphs import engines; engines.has_bfloat16()",
    BACKEND: f"""
import runpy, sys, types
sys.modules["triton_python_backend_utils"] = types.ModuleType("stub")
runpy.run_path("{BACKEND}")
""",
}


def test_only_the_modules_that_are_tested_import_openvino() -> None:
    files = [*ROOT.glob("scripts/**/*.py"), *ROOT.glob("client/**/*.py")]
    importing = {str(file.relative_to(ROOT)) for file in files if "openvino" in imports(file)}
    assert importing == USES.keys()


@pytest.mark.parametrize("file", USES)
def test_openvino_is_imported_without_its_telemetry(file: str, tmp_path: Path) -> None:
    report = "import sys; print(sys.modules['openvino'], sys.modules['openvino_telemetry'])"
    # In a CI job OpenVINO does not report its import.
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    result = subprocess.run(
        [sys.executable, "-c", f"{USES[file]}\n{report}"],
        cwd=ROOT,
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.startswith("<module 'openvino'")
    assert result.stdout.endswith(" None\n")
    assert list(tmp_path.iterdir()) == []  # where the telemetry keeps its id
