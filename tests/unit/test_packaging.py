"""The contents and metadata of the wheel and the source distribution."""

import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import client
from tests import distribution
from tests.conftest import ROOT
from tests.distribution import Distributions
from tests.unit.test_layout import imports

PACKAGE = "triton_imagenet"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    return distribution.build(tmp_path_factory.mktemp("packaging"))


@pytest.fixture(scope="module")
def packed(distributions: Distributions) -> set[str]:
    """The names of the files in the wheel."""
    return set(zipfile.ZipFile(distributions.wheel).namelist())


@pytest.fixture(scope="module")
def metadata(distributions: Distributions, packed: set[str]) -> Message:
    (name,) = (name for name in packed if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(zipfile.ZipFile(distributions.wheel).read(name))


def test_the_dependencies_are_what_the_client_imports(metadata: Message) -> None:
    imported = set[str]().union(*map(imports, (ROOT / "client").rglob("*.py")))
    outside = imported - set(sys.stdlib_module_names)
    needed = {"pillow" if package == "PIL" else package for package in outside}
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    assert [each.name for each in requirements if each.marker] == []
    assert needed == {each.name for each in requirements}


def test_the_version_is_the_clients(metadata: Message) -> None:
    assert metadata["Version"] == client.__version__


def test_the_wheel_contains_every_file_of_the_client(packed: set[str]) -> None:
    files = [path for path in (ROOT / "client").rglob("*") if path.is_file()]
    expected = {
        f"{PACKAGE}/{path.relative_to(ROOT / 'client')}" for path in files if path.suffix != ".pyc"
    }
    assert f"{PACKAGE}/py.typed" in expected
    assert {name for name in packed if name.startswith(f"{PACKAGE}/")} == expected


def test_the_wheel_contains_nothing_else_but_metadata(packed: set[str]) -> None:
    dist_info = f"{PACKAGE}-{client.__version__}.dist-info"
    assert {Path(name).parts[0] for name in packed} == {PACKAGE, dist_info}
    assert f"{dist_info}/licenses/LICENSE" in packed


def test_the_source_distribution_contains_no_scripts(distributions: Distributions) -> None:
    with tarfile.open(distributions.sdist) as archive:
        tops = {Path(*Path(name).parts[1:2]).as_posix() for name in archive.getnames()}
    assert {"client", "pyproject.toml", "README.md", "LICENSE"} <= tops
    assert not {"scripts", "tests"} & tops


def test_twine_accepts_both_distributions(distributions: Distributions) -> None:
    files = [str(distributions.wheel), str(distributions.sdist)]
    command = [sys.executable, "-m", "twine", "check", "--strict", *files]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("PASSED") == len(files)
