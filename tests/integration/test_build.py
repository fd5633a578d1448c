"""`python -m scripts.build_repository` as its user meets it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from scripts import build_repository
from tests.conftest import ROOT
from tests.files import contents
from tests.graphs import FLEXIBLE, classifier

INT8 = ("--precision", "int8", "--calibration")


def build(output: Path, *options: str, **environment: str) -> None:
    command = [sys.executable, "-m", "scripts.build_repository", "--output", str(output)]
    subprocess.run([*command, *options], cwd=ROOT, env=os.environ | environment, check=True)


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        options = ("--models", "mobilenetv2", "--weights", "synthetic")
        build(tmp_path / seed, *options, PYTHONHASHSEED=seed)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_the_manifest_describes_every_classifier_of_the_catalogue(repository: Path) -> None:
    models = json.loads((repository / "manifest.json").read_text())["models"]
    zoo = {name: entry for name, entry in models.items() if "birds" not in name}
    assert len(zoo) == 11
    assert {entry["labels"] for entry in zoo.values()} == {"imagenet_postprocess/labels.txt"}
    assert all(entry["source"] == f"synthetic {_zoo_file(name)}" for name, entry in zoo.items())
    assert all(len(entry["source_sha256"]) == 64 for entry in zoo.values())
    assert zoo["mobilenetv2"]["recipe"]["resize"] == 224
    assert zoo["resnet50_v2"]["recipe"]["resize"] == 256


def _zoo_file(name: str) -> str:
    family, _, version = name.partition("_")
    return f"{family}-{version}-7.onnx" if version else f"{name}-7.onnx"


def test_every_prepared_graph_is_free_of_what_the_zoo_fixed(repository: Path) -> None:
    files = list(repository.glob("*_onnx/1/model.onnx"))
    assert len(files) == 13
    for file in files:
        graph = onnx.load(file).graph
        (image,) = graph.input
        assert [dim.dim_param for dim in image.type.tensor_type.shape.dim] == ["N", "", "H", "W"]


def test_prune_leaves_only_what_is_named(tmp_path: Path) -> None:
    output, file = tmp_path / "model_repository", tmp_path / "birds.onnx"
    onnx.save(classifier(FLEXIBLE), file)
    for name in ("birds", "planes"):
        options = ["--onnx", str(file), "--name", name, "--output", str(output), "--prune"]
        assert build_repository.main(options) == 0
    assert {path.name for path in output.iterdir() if path.is_dir()} == {
        *("planes", "planes_preprocess", "planes_pixels", "planes_postprocess", "planes_onnx")
    }


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--models", "resnet99"], "unknown model resnet99; choose from: all, resnet18_v1"),
        (["--onnx", "birds.onnx"], "--onnx and --name go together"),
        (["--onnx", "nowhere.onnx", "--name", "birds"], "nowhere.onnx: No such file or directory"),
        (["--crop", "299"], "are for your own classifier; give --onnx"),
        (["--precision", "int8"], "--precision int8 and --calibration go together"),
        (["--calibration", "tests"], "--precision int8 and --calibration go together"),
        ([*INT8, "nowhere"], "--calibration: no folder nowhere; give one of images"),
        ([*INT8, "tests"], "tests has no image that can be read; take 100 or more"),
        (["--weights", "nowhere"], "no folder nowhere; give zoo, synthetic or a folder"),
        (["--models", "resnet18_v1", "--weights", "."], "put the zoo's resnet18-v1-7.onnx there"),
    ],
)
def test_what_cannot_be_built_is_one_line(
    options: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_repository.main([*options, "--output", str(tmp_path / "output")]) == 1
    said = capsys.readouterr().err
    assert complaint in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "output").exists()
