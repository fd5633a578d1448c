"""The command `python -m scripts.build_repository`."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from client import SAMPLE
from scripts import build_repository, engine_options
from scripts.embedded import EmbeddedServer, Endpoints
from scripts.repository import builder, execution, manifest, sources
from scripts.repository.graphs import engines, synthetic
from scripts.repository.graphs.prepare import Prepared, prepare
from tests.conftest import ROOT
from tests.files import contents
from tests.graphs import SOFTMAXED, classifier
from tests.integration.conftest import HASTE

INT8 = ("--precision", "int8", "--calibration")


SYNTHETIC = ("--models", "mobilenetv2", "--weights", "synthetic")


def own(file: Path, name: str, output: Path) -> list[str]:
    return ["--onnx", str(file), "--name", name, "--output", str(output)]


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[onnx.ModelProto]:
    """The graphs that were prepared, in order."""
    graphs: list[onnx.ModelProto] = []

    def record(model: onnx.ModelProto, **options: Any) -> Prepared:
        graphs.append(model)
        return prepare(model, **options)

    monkeypatch.setattr(builder, "prepare", record)
    return graphs


def test_builds_are_reproducible(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.build_repository", *SYNTHETIC]
    builds = [
        subprocess.Popen(
            [*command, "--output", str(tmp_path / seed)],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]
    assert [build.wait(120) for build in builds] == [0, 0]
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_a_second_build_does_no_work_and_changes_nothing(
    tmp_path: Path,
    graph: Path,
    prepared: list[onnx.ModelProto],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "model_repository"
    options = [*SYNTHETIC, *own(graph, "birds", output)]
    assert build_repository.main(options) == 0
    before = contents(output)
    assert len(prepared) == 2
    assert "up to date" not in capsys.readouterr().out

    monkeypatch.setattr(synthetic, "build", None)
    assert build_repository.main(options) == 0
    assert len(prepared) == 2
    assert contents(output) == before
    lines = capsys.readouterr().out.splitlines()
    assert [line[:12].strip() for line in lines if line.endswith(", up to date")] == [
        *("mobilenetv2", "birds")
    ]


def test_force_builds_again(
    tmp_path: Path, graph: Path, prepared: list[onnx.ModelProto], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model_repository"
    for options in ([], ["--force"]):
        assert build_repository.main([*own(graph, "birds", output), *options]) == 0
    assert len(prepared) == 2
    assert "up to date" not in capsys.readouterr().out


def test_another_file_under_the_same_name_is_built(
    tmp_path: Path, graph: Path, prepared: list[onnx.ModelProto]
) -> None:
    output = tmp_path / "model_repository"
    assert build_repository.main(own(graph, "birds", output)) == 0
    onnx.save(classifier(SOFTMAXED), graph)
    assert build_repository.main(own(graph, "birds", output)) == 0
    assert len(prepared) == 2
    assert manifest.read(output)["birds"].scores == "probabilities"


def test_other_tuning_is_built(
    tmp_path: Path, graph: Path, prepared: list[onnx.ModelProto]
) -> None:
    output = tmp_path / "model_repository"
    for cores in ("1", "2"):
        options = own(graph, "birds", output)
        assert build_repository.main([*options, "--cores", cores]) == 0
    assert len(prepared) == 2


def test_another_engine_is_built_and_named(
    tmp_path: Path, graph: Path, prepared: list[onnx.ModelProto], capsys: pytest.CaptureFixture[str]
) -> None:
    options = own(graph, "birds", tmp_path / "model_repository")
    for engine in ([], ["--engine", "openvino"], ["--engine", "openvino"]):
        assert build_repository.main([*options, *engine]) == 0
    assert len(prepared) == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if "10 classes" in line]
    default, openvino, again = lines
    assert openvino == f"{default}, fp32 on OpenVINO"
    assert again == f"{openvino}, up to date"


def test_an_engine_is_measured_once_and_again_with_force(
    tmp_path: Path,
    graph: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_options, "CONTAINER_FILES", ())
    ratios = iter([1.5, 0.7])
    monkeypatch.setattr(execution, "speeds", lambda *_: (1.0, next(ratios)))
    options = [*own(graph, "birds", tmp_path / "model_repository"), "--engine", "auto"]
    for more in ([], [], ["--force"]):
        assert build_repository.main([*options, *more]) == 0
    first, again, forced = [
        line.partition("birds.onnx, ")[2]
        for line in capsys.readouterr().out.splitlines()
        if "10 classes" in line
    ]
    assert first == "fp32 on OpenVINO (OpenVINO is 1.50 times as fast as onnxruntime)"
    assert again == f"{first}, up to date"
    assert forced == "fp32 on onnxruntime (OpenVINO is 0.70 times as fast as onnxruntime)"


def test_bf16_is_built_with_a_report_or_a_warning(
    tmp_path: Path,
    graph: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = [*own(graph, "birds", tmp_path / "model_repository"), "--precision", "bf16"]
    assert build_repository.main(options) == 0
    out = capsys.readouterr().out
    assert "10 classes, recipe 37/32, from file birds.onnx, bf16 on OpenVINO" in out
    if engines.has_bfloat16():
        assert "bf16 on OpenVINO is " in out
        assert "of 40 generated images" in out
    else:
        (warning,) = caplog.messages
        assert warning.startswith("this CPU has no bfloat16 instructions")


def test_a_build_starts_from_the_readme_of_a_checkout(tmp_path: Path, graph: Path) -> None:
    output = tmp_path / "model_repository"
    output.mkdir()
    readme = shutil.copy(ROOT / "model_repository" / "README.md", output)
    before = Path(readme).read_bytes()
    assert build_repository.main(own(graph, "birds", output)) == 0
    assert Path(readme).read_bytes() == before
    with EmbeddedServer(output, endpoints=Endpoints.free(), arguments=HASTE):
        pass


def tree() -> set[str]:
    """The paths in the tree of model_repository/README.md, relative to the folder."""
    text = (ROOT / "model_repository" / "README.md").read_text("utf-8")
    found, parents = set(), [""] * 4
    for marks, name in re.findall(r"^([│├└─ ]+── )(\S+)", text, re.MULTILINE):
        depth = len(marks) // 4
        parents[depth] = f"{parents[depth - 1]}/{name}"
        found.add(parents[depth].removeprefix("/"))
    return found


def test_the_readme_shows_every_file_of_a_classifier(repository: Path) -> None:
    parts = manifest.read(repository)["resnet50_v1"].parts.values()
    paths = {
        path.relative_to(repository) for part in parts for path in repository.glob(f"{part}/**/*")
    }
    written = {str(path) for path in paths if "__pycache__" not in path.parts}
    assert tree() == {*written, *parts, "README.md", "manifest.json"}


def test_the_manifest_has_every_classifier_of_the_catalogue(repository: Path) -> None:
    models = json.loads((repository / "manifest.json").read_text())["models"]
    zoo = {name: entry for name, entry in models.items() if "birds" not in name}
    assert len(zoo) == 11
    assert {entry["labels"] for entry in zoo.values()} == {"imagenet_postprocess/labels.txt"}
    assert all(entry["source"] == f"synthetic {_zoo_file(name)}" for name, entry in zoo.items())
    assert all(len(entry["source_sha256"]) == 64 for entry in zoo.values())
    assert zoo["mobilenetv2"]["recipe"]["resize"] == [224, 224]
    assert zoo["resnet50_v2"]["recipe"]["resize"] == [256, 256]


def _zoo_file(name: str) -> str:
    family, _, version = name.partition("_")
    return f"{family}-{version}-7.onnx" if version else f"{name}-7.onnx"


def test_every_prepared_graph_has_a_variable_batch_and_size(repository: Path) -> None:
    files = list(repository.glob("*_onnx/1/model.onnx"))
    assert len(files) == 14
    for file in files:
        graph = onnx.load(file).graph
        (image,) = graph.input
        assert [dim.dim_param for dim in image.type.tensor_type.shape.dim] == ["N", "", "H", "W"]


def test_two_builds_at_once_wait_for_each_other(tmp_path: Path, graph: Path) -> None:
    output = tmp_path / "model_repository"
    command = [sys.executable, "-m", "scripts.build_repository"]
    builds = [
        subprocess.Popen([*command, *own(graph, name, output)], cwd=ROOT, stdout=subprocess.DEVNULL)
        for name in ("birds", "planes", "cats")
    ]
    assert [build.wait(120) for build in builds] == [0, 0, 0]
    entries = manifest.read(output)
    assert entries.keys() == {"birds", "planes", "cats"}
    parts = {part for entry in entries.values() for part in entry.parts.values()}
    assert manifest.verify(output, parts) == []
    assert {path.name for path in tmp_path.iterdir()} == {"model_repository", "birds.onnx"}


def test_a_full_disk_is_reported_in_one_line_and_changes_nothing(
    tmp_path: Path,
    graph: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "model_repository"
    assert build_repository.main(own(graph, "birds", output)) == 0
    before = contents(tmp_path)
    write = Path.write_bytes

    def refuse(path: Path, data: bytes) -> int:
        if path.name == "model.onnx":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    capsys.readouterr()
    assert build_repository.main([*own(graph, "planes", output), "--queue", "3"]) == 1
    assert capsys.readouterr().err == f"error: {output}: No space left on device\n"
    assert contents(tmp_path) == before


def test_git_ignores_what_a_build_writes() -> None:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a Git checkout")
    written = ["model_repository/manifest.json", ".model_repository.staging/new/birds"]
    command = ["git", "check-ignore", "--no-index", *written, "model_repository/README.md"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == written


def test_prune_keeps_own_classifiers_and_those_that_are_named(
    tmp_path: Path, graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model_repository"
    assert build_repository.main(own(graph, "birds", output)) == 0
    builder.add(output, sources.from_file(graph, "resnet18_v1"))
    assert build_repository.main([*SYNTHETIC, "--output", str(output), "--prune"]) == 0
    assert set(manifest.read(output)) == {"birds", "mobilenetv2"}
    assert "resnet18_v1   removed\n" in capsys.readouterr().out
    assert not list(output.glob("resnet18_v1*"))


def test_remove_removes_only_what_is_named(tmp_path: Path, graph: Path) -> None:
    output = tmp_path / "model_repository"
    for name in ("birds", "planes"):
        assert build_repository.main(own(graph, name, output)) == 0
    assert build_repository.main(["--remove", "birds", "--output", str(output)]) == 0
    assert {path.name for path in output.iterdir() if path.is_dir()} == {
        *("planes", "planes_preprocess", "planes_pixels", "planes_postprocess", "planes_onnx")
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "resnet99"], "unknown model resnet99; choose from: all, resnet18_v1"),
        (["--onnx", "birds.onnx", "--hub", "a/b"], "--onnx and --hub exclude each other"),
        (["--onnx", "nowhere.onnx", "--name", "birds"], "there is no file or folder nowhere.onnx"),
        (["--crop", "299", "--mean", "0"], "--crop, --mean, give your own classifier"),
        (["--onnx", "b.onnx", "--weights", "synthetic"], "--weights is for the zoo's classifiers"),
        (
            ["--precision", "int8"],
            "--precision int8 requires --calibration with a folder of images",
        ),
        (["--calibration", "tests"], "--calibration requires --precision int8, bf16 or fp16"),
        (["--engine", "onnxruntime", "--precision", "bf16"], "onnxruntime does not compute in bf"),
        (
            ["--device", "gpu", "--engine", "auto"],
            "--engine auto is for --device cpu; leave it out",
        ),
        (["--device", "gpu", "--precision", "bf16"], "--precision bf16 is for --device cpu; leave"),
        (["--device", "gpu", *INT8, "tests"], "--precision int8 is for --device cpu; leave it out"),
        (["--engine", "tensorrt"], "--engine tensorrt is for --device gpu; give both, or leave it"),
        ([*INT8, "nowhere"], "--calibration: no folder nowhere; give one of images"),
        ([*INT8, "scripts"], "scripts has no image that can be read; at least 100 are"),
        (["--weights", "nowhere"], "no folder nowhere; give zoo, synthetic or a folder"),
        (["--remove", "birds"], "has no birds; it has no classifier"),
        (["--remove", "birds", "--prune"], "--prune with --remove requires --models, --"),
        (["--models", "resnet18_v1", "--weights", "."], "put the zoo's resnet18-v1-7.onnx there"),
    ],
)
def test_errors_are_reported_in_one_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_repository.main([*options, "--output", str(tmp_path / "output")]) == 1
    output = capsys.readouterr().err
    assert message in output
    assert output.startswith("error: ")
    assert output.count("\n") == 1
    assert not (tmp_path / "output").exists()


def test_a_build_says_what_was_assumed(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model_repository"
    assert build_repository.main(["--onnx", str(graph), "--output", str(output)]) == 0
    printed = capsys.readouterr()
    assert [" ".join(line.split()) for line in printed.out.splitlines()[:6]] == [
        "birds 10 classes, recipe 37/32, from file birds.onnx",
        "size shorter side to 37, crop 32, bilinear, zoo rounding, fast decoding "
        "[assumed, the graph]",
        "pixels RGB 0..1, mean 0.485 0.456 0.406, std 0.229 0.224 0.225 [assumed]",
        "labels numbers",
        "scores logits, output scores [no Softmax or Sigmoid at the end]",
        "batches of any size; no difference",
    ]
    assert "nothing says mean and std for the pixels of birds; assumed: RGB 0..1" in printed.err


def test_options_override_and_are_named_as_the_source(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model_repository"
    options = ["--recipe", "timm", "--interpolation", "lanczos", "--decoding", "exact"]
    assert build_repository.main([*own(graph, "birds", output), *options]) == 0
    printed = capsys.readouterr()
    assert "lanczos" in printed.out
    assert "exact decoding" in printed.out
    assert "--interpolation" in printed.out
    assert printed.err == ""
    recipe = manifest.read(output)["birds"].recipe
    assert (recipe["interpolation"], recipe["rounding"]) == ("lanczos", "torchvision")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("birds.onnx", "birds"),
        ("vögel und bären.onnx", "v_gel_und_b_ren"),
        ("resnet.v2/model.onnx", "resnet.v2"),
        ("resnet/onnx/model.onnx", "resnet"),
        ("resnet/onnx/model_fp16.onnx", "resnet_fp16"),
        ("model_birds.onnx", "model_birds"),
    ],
)
def test_a_classifier_is_named_after_its_file_or_folder(
    path: str, name: str, graph: Path, tmp_path: Path
) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    graph.rename(file)
    output = tmp_path / "model_repository"
    assert build_repository.main(["--onnx", str(file), "--output", str(output)]) == 0
    assert list(manifest.read(output)) == [name]


def test_predictions_are_compared_with_the_file(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model_repository"
    check = ["--decoding", "exact", "--check", str(SAMPLE)]
    assert build_repository.main([*own(graph, "birds", output), *check]) == 0
    printed = capsys.readouterr().out
    assert f"{SAMPLE}: probabilities differ by up to 0.0000" in printed
    assert "served" in printed
    assert "the file, exact decoding" in printed


def test_recipes_are_listed_with_their_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert build_repository.main(["--list-recipes"]) == 0
    printed = capsys.readouterr().out
    for name in ("torchvision-v1", "timm", "clip", "keras-caffe"):
        assert name in printed
