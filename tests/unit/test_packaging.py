"""What `pip install .` installs."""

import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT
from tests.unit.test_layout import imports

# Neither code nor data that anything needs where it is installed.
IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("packaging")
    for name in ("client", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=IGNORED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(folder)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel)


@pytest.fixture(scope="module")
def packed(wheel: zipfile.ZipFile) -> set[str]:
    """The names of the files in it."""
    return set(wheel.namelist())


def test_the_clients_extra_is_what_the_client_imports(wheel: zipfile.ZipFile) -> None:
    imported = set[str]().union(*map(imports, (ROOT / "client").rglob("*.py")))
    outside = imported - set(sys.stdlib_module_names) - {"client"}
    needed = {"pillow" if package == "PIL" else package for package in outside}
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    requirements = message_from_bytes(wheel.read(metadata)).get_all("Requires-Dist", [])
    extra = {
        requirement.name
        for requirement in map(Requirement, requirements)
        if requirement.marker and requirement.marker.evaluate({"extra": "client"})
    }
    assert needed == extra


@pytest.mark.parametrize("package", ["client", "scripts"])
def test_every_file_of_a_package_is_installed(packed: set[str], package: str) -> None:
    files = [path for path in (ROOT / package).rglob("*") if path.is_file()]
    expected = {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}
    assert {name for name in packed if Path(name).parts[0] == package} == expected


def test_the_licence_comes_along_and_the_tests_do_not(packed: set[str]) -> None:
    assert any(name.endswith("licenses/LICENSE") for name in packed)
    assert not any(name.startswith("tests/") for name in packed)
