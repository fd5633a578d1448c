"""INT8 classifiers, built with the command and served next to FP32."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from client import Classification, Classifier
from scripts import build_repository
from scripts.embedded import EmbeddedServer, Endpoints
from tests.conftest import ROOT
from tests.files import contents
from tests.graphs import CLASSES, convolved
from tests.images import fill, mixed_sizes, photo
from tests.integration.conftest import HASTE, url

COMMAND = [sys.executable, "-m", "scripts.build_repository"]


def int8(calibration: Path) -> list[str]:
    return ["--precision", "int8", "--calibration", str(calibration)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("pictures"), 100)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("graph") / "birds.onnx"
    onnx.save(convolved(), file)
    return file


def own(graph: Path, name: str, output: Path) -> list[str]:
    described = ["--name", name, "--normalization", "imagenet"]
    return ["--onnx", str(graph), *described, "--output", str(output)]


def classify(server: EmbeddedServer, protocol: str, model: str) -> list[Classification]:
    with Classifier(url(server, protocol), model=model, top_k=CLASSES) as classifier:
        return classifier.batch(mixed_sizes())


# Another machine: no fast resizer, and three threads for each session that does not choose.
ELSEWHERE = {
    "cykooz_resizer.py": "raise ImportError",
    "sitecustomize.py": """
import onnxruntime

class Session(onnxruntime.InferenceSession):
    def __init__(self, model, sess_options, **settings):
        sess_options.intra_op_num_threads = 3
        super().__init__(model, sess_options, **settings)

onnxruntime.InferenceSession = Session
""",
}


def start(options: list[str], folder: Path = ROOT, **environment: str) -> "subprocess.Popen[str]":
    """Start a build in a process of its own, in a folder."""
    return subprocess.Popen(
        [*COMMAND, *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def printed(build: "subprocess.Popen[str]") -> list[str]:
    """Wait for a build that succeeds, and return the lines of what it prints."""
    output, _ = build.communicate(timeout=300)
    assert build.returncode == 0
    return output.splitlines()


def test_builds_are_reproducible_and_report_speed_and_agreement(
    graph: Path, pictures: Path, tmp_path: Path
) -> None:
    builds = [
        start([*own(graph, "birds", tmp_path / seed), *int8(pictures)], PYTHONHASHSEED=seed)
        for seed in ("1", "2")
    ]
    for build in builds:
        lines = printed(build)
        assert lines[1].startswith("birds         10 classes")
        assert "times as fast as fp32" in lines[0]
        assert "of 20 held-out images" in lines[0]
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_other_machines_with_the_same_libraries_build_the_same_bytes(tmp_path: Path) -> None:
    pictures = fill(tmp_path / "pictures", 3)
    photo(900, 700).save(pictures / "photo.jpg")
    elsewhere = tmp_path / "else where ü"
    elsewhere.mkdir()
    for name, text in ELSEWHERE.items():
        (elsewhere / name).write_text(text)
    for file in sorted(pictures.iterdir(), reverse=True):
        (elsewhere / file.name).write_bytes(file.read_bytes())
    common = ["--models", "mobilenetv2", "--weights", "synthetic", "--cores", "2"]
    here = start([*common, "--output", str(tmp_path / "here"), *int8(pictures)])
    there = start(
        [*common, "--output", "there", *int8(Path())],
        elsewhere,
        PYTHONPATH=f"{elsewhere}:{ROOT}",
        LC_ALL="C",
        TMPDIR=str(elsewhere),
    )
    for build in (here, there):
        printed(build)
    assert contents(tmp_path / "here") == contents(elsewhere / "there")


def test_a_second_build_with_the_same_images_does_no_work(
    graph: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = own(graph, "birds", tmp_path / "output")
    assert build_repository.main([*options, *int8(pictures)]) == 0
    before = contents(tmp_path / "output")
    capsys.readouterr()
    assert build_repository.main([*options, *int8(pictures)]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(", up to date")
    assert contents(tmp_path / "output") == before
    assert build_repository.main([*options, *int8(fill(tmp_path / "other", 5))]) == 0
    assert "up to date" not in capsys.readouterr().out


def test_few_images_and_broken_ones_are_reported_in_a_line_each(
    graph: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = fill(tmp_path / "pictures", 3)
    (folder / "broken.jpg").write_bytes(b"not an image")
    options = [*own(graph, "birds", tmp_path / "output"), *int8(folder)]
    assert build_repository.main(options) == 0
    out, err = capfd.readouterr()
    assert "of 3 calibration images" in out
    warnings = [line for line in err.splitlines() if "not faster" not in line]
    assert len(warnings) == 2
    assert warnings[0].startswith(f"warning: skipped {folder / 'broken.jpg'}: not an image")
    assert warnings[1] == "warning: only 3 calibration images; at least 100 are recommended"


@pytest.fixture(scope="module")
def server(
    graph: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    output = tmp_path_factory.mktemp("int8") / "model_repository"
    assert build_repository.main(own(graph, "birds_fp32", output)) == 0
    assert build_repository.main([*own(graph, "birds_int8", output), *int8(pictures)]) == 0
    with EmbeddedServer(output, endpoints=Endpoints.free(), arguments=HASTE) as server:
        yield server


def test_its_results_match_fp32(server: EmbeddedServer, protocol: str) -> None:
    fp32, quantized = (classify(server, protocol, f"birds_{each}") for each in ("fp32", "int8"))
    for expected, actual in zip(fp32, quantized, strict=True):
        assert actual.top.class_id == expected.top.class_id
        assert actual.top.probability == pytest.approx(expected.top.probability, abs=0.05)
