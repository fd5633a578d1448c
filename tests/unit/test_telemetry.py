"""The engines report their use to their makers, unless they are told not to."""

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
sys.path.insert(0, "{Path(BACKEND).parents[1] / "python"}")
sys.modules["triton_python_backend_utils"] = types.ModuleType("stub")
runpy.run_path("{BACKEND}")
""",
}


def output(code: str, home: Path, *removed: str) -> str:
    """Run Python code with an empty home folder, and without some variables."""
    kept = {name: value for name, value in os.environ.items() if name not in removed}
    environment = kept | {"HOME": str(home), "XDG_CACHE_HOME": str(home)}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_only_the_modules_that_are_tested_import_openvino() -> None:
    files = [*ROOT.glob("scripts/**/*.py"), *ROOT.glob("client/**/*.py")]
    importing = {str(file.relative_to(ROOT)) for file in files if "openvino" in imports(file)}
    assert importing == USES.keys()


@pytest.mark.parametrize("file", USES)
def test_openvino_is_imported_without_its_telemetry(file: str, tmp_path: Path) -> None:
    report = "import sys; print(sys.modules['openvino'], sys.modules['openvino_telemetry'])"
    # With the variable CI, OpenVINO does not report its import.
    printed = output(f"{USES[file]}\n{report}", tmp_path, "CI")
    assert printed.startswith("<module 'openvino'")
    assert printed.endswith(" None\n")
    assert not (tmp_path / "intel").exists()  # where the telemetry keeps its id


def test_onnxruntime_keeps_no_id_for_its_telemetry(tmp_path: Path) -> None:
    output("import scripts, onnxruntime", tmp_path, "ORT_DISABLE_TELEMETRY")
    assert list(tmp_path.iterdir()) == []
