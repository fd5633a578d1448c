"""The command `python -m scripts.adapt`, on a small classifier and coloured pictures."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import pytest
from PIL import Image

from scripts import adapt, build_repository
from scripts.adaptation import files, process
from scripts.adaptation.files import replacing
from scripts.repository import manifest, sources, tuning
from scripts.repository.errors import BuildError
from scripts.repository.metadata import self_description
from scripts.repository.steps.preprocess.recipe import Recipe
from tests.files import contents
from tests.graphs import CLASSES, classifier, convolved

COLOURS = {"blue things": (40, 60, 200), "green": (60, 200, 50), "red": (210, 40, 50)}
COUNTS = {"blue things": 10, "green": 12, "red": 14}


def fill(folder: Path, counts: Mapping[str, int] = MappingProxyType(COUNTS)) -> Path:
    """Write noisy pictures in the colour of their class."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = COLOURS[name] + rng.integers(-40, 40, (40, 48, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                folder / name / f"{number:02}.png"
            )
    return folder


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, with the classifier, and with all that the command writes."""
    folder = tmp_path_factory.mktemp("adapted")
    fill(folder / "data")
    onnx.save(convolved(), folder / "base.onnx")
    assert run(folder) == 0
    return folder


@pytest.fixture
def place(adapted: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    return Path(shutil.copytree(adapted, tmp_path / "place"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return fill(tmp_path / "data")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    file = tmp_path / "base.onnx"
    onnx.save(convolved(), file)
    return file


def run(folder: Path, *options: str) -> int:
    return adapt.main(
        [
            *("--onnx", str(folder / "base.onnx"), "--data", str(folder / "data")),
            *("--name", "colours", "--recipe", "torchvision-v1", "--crop", "32", "--resize", "36"),
            *("--output", str(folder / "out"), "--model-repository", str(folder / "models")),
            *options,
        ]
    )


def test_it_writes_the_classifier_and_adds_it_to_the_repository(
    tmp_path: Path, data: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path) == 0
    output = capsys.readouterr().out
    assert (
        "colours       3 classes, 36 images, 10 to 14 of a class, 8 features for an image" in output
    )
    assert "accuracy 100.0% [64.6%, 100.0%] of 7 held-out images, by a layer trained on" in output
    assert "then trained in the same way on all 36 images" in output
    assert "1 blue things  2  0  0  100.0%" in output
    assert "2 green        0  2  0  100.0%" in output
    assert "3 red          0  0  3  100.0%" in output
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "colours.onnx",
        "colours-confusion.png",
    }
    Image.open(tmp_path / "out" / "colours-confusion.png").verify()
    entry = manifest.read(tmp_path / "models")["colours"]
    labels = (tmp_path / "models" / entry.labels).read_text().splitlines()
    assert labels == ["blue things", "green", "red"]
    assert (entry.classes, entry.scores, entry.recipe["crop"]) == (3, "logits", [32, 32])


def test_the_file_says_what_it_is_made_from(tmp_path: Path, data: Path, base: Path) -> None:
    assert run(tmp_path, "--no-build", "--seed", "5", "--held-out", "50") == 0
    model = onnx.load(tmp_path / "out" / "colours.onnx")
    said = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    facts = said["triton_imagenet.adapted"]
    assert facts["base"] == "file base.onnx"
    assert (facts["images"], facts["held_out"], facts["seed"]) == (36, 18, 5)
    assert not (tmp_path / "models").exists()


def test_a_build_of_the_file_needs_no_other_option(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even beside files that describe the classifier that it was made from."""
    out = place / "out"
    (out / "labels.txt").write_text("\n".join(map(str, range(10))))
    (out / "preprocessor_config.json").write_text('{"image_processor_type": "Unknown"}')
    again = place / "again"
    capsys.readouterr()
    options = ["--onnx", str(out / "colours.onnx"), "--output", str(again)]
    assert build_repository.main(options) == 0
    assert "warning" not in capsys.readouterr().err
    one, other = (manifest.read(each)["colours"] for each in (place / "models", again))
    # One has --decoding as an origin.
    same = (replace(each, inputs_sha256="", origins={}) for each in (one, other))
    assert next(same) == next(same)
    assert Recipe.from_json(json.dumps(one.recipe)) == Recipe(
        (36, 36), (32, 32), rounding="torchvision"
    )


def test_options_override_what_the_file_says(adapted: Path, tmp_path: Path) -> None:
    labels = tmp_path / "names.txt"
    labels.write_text("a\nb\nc")
    options = ["--onnx", str(adapted / "out" / "colours.onnx"), "--output", str(tmp_path / "own")]
    assert build_repository.main([*options, "--labels", str(labels), "--recipe", "vit"]) == 0
    entry = manifest.read(tmp_path / "own")["colours"]
    assert entry.labels_origin == "names.txt"
    assert entry.recipe["mode"] == "squash"


def test_changed_metadata_is_refused(tmp_path: Path) -> None:
    model = convolved()
    self_description.write(model, ["a", "b"], Recipe())
    model.metadata_props[1].value = '{"resize": "large"}'
    with pytest.raises(BuildError, match="triton_imagenet"):
        self_description.read(model)


def test_the_same_seed_gives_the_same_bytes_on_any_number_of_cores(
    adapted: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = contents(adapted / "out")
    for cores, seed in ((3, "1"), (1, "0")):
        monkeypatch.setattr(tuning, "cores", lambda cores=cores: cores)
        assert run(place, "--no-build", "--seed", seed) == 0
        is_same = contents(place / "out")["colours.onnx"] == expected["colours.onnx"]
        assert is_same == (seed == "0")
    assert contents(place / "out") == expected


def test_a_classifier_of_the_same_name_is_replaced(place: Path) -> None:
    before = manifest.read(place / "models")["colours"]
    shutil.rmtree(place / "data" / "red")
    assert run(place) == 0
    after = manifest.read(place / "models")["colours"]
    assert (before.classes, after.classes) == (3, 2)


def test_a_classifier_of_the_zoo_is_adapted_at_another_size(
    tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ["--model", "mobilenetv2", "--weights", "synthetic", "--crop", "64"]
    options += ["--data", str(data), "--name", "colours", "--output", str(tmp_path), "--no-build"]
    assert adapt.main(options) == 0
    assert "synthetic weights are random" in caplog.text
    source = sources.from_file(tmp_path / "colours.onnx", "colours")
    assert (source.labels, source.recipe.crop) == (tuple(COLOURS), (64, 64))
    onnx.checker.check_model(source.load().model)


def test_images_that_cannot_be_used_are_counted(
    tmp_path: Path, data: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (data / "red" / "broken.png").write_bytes((data / "red" / "00.png").read_bytes()[:200])
    (data / "red" / "text.png").write_text("no image")
    shutil.copy(data / "red" / "01.png", data / "green" / "copy.png")
    Image.open(data / "red" / "02.png").save(data / "red" / "copy.bmp")
    assert run(tmp_path, "--no-build") == 0
    assert "left out 2 images that cannot be read: 'red/broken.png (" in caplog.text
    assert (
        "left out 1 image with the content of another one of the class: 'red/copy.bmp'"
        in caplog.text
    )
    assert (
        "left out 2 images with the content of one of another class: 'green/copy.png', 'red/01.png'"
        in (caplog.text)
    )


ONNX = ("--onnx", "base.onnx")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--onnx", "nowhere.onnx"), "there is no file or folder nowhere.onnx"),
        ((*ONNX, "--data", "nowhere"), "nowhere"),
        ((*ONNX, "--data", "data/red"), "data/red has images in"),
        ((*ONNX, "--name", "resnet50_v1"), "the name resnet50_v1 is reserved"),
        ((*ONNX, "--name", "a/b"), "invalid model name"),
        ((*ONNX, "--weights", "synthetic"), "--weights is for --model"),
        ((*ONNX, "--model-repository", "data"), "data is not a model repository"),
        (("--onnx", "fixed.onnx", "--crop", "64"), "the graph takes 32 pixels, not a crop of 64"),
        ((*ONNX, "--colour", "grey"), "the graph takes 3 channels, not the colour grey"),
        (("--model", "resnet18_v1", "--recipe", "vit"), "--recipe is for your own classifier"),
        (("--model", "resnet18_v1", "--weights", "nowhere"), "no folder nowhere"),
        ((*ONNX, "--output", "base.onnx/out"), "base.onnx is in the way of base.onnx/out/colours"),
        (("--onnx", "out/colours.onnx"), "out/colours.onnx would replace the classifier that is"),
        (("--onnx", "out"), "out/colours.onnx would replace the classifier that is"),
        ((*ONNX, "--data", "alike"), "several folders have the label 'green' without line breaks"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    options: tuple[str, ...],
    words: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    dense = np.ones((3 * 32 * 32, CLASSES), np.float32)
    body = "flat = Flatten(image) scores = MatMul(flat, dense)"
    onnx.save(classifier(body, initializers={"dense": dense}), "fixed.onnx")
    for name in ("green", "green\n"):
        shutil.copytree("data/green", f"alike/{name}")
    before = contents(place)
    defaults = ["--data", "data", "--name", "colours", "--output", "out"]
    assert adapt.main([*defaults, "--model-repository", "models", *options]) == 1
    (line,) = (
        line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning")
    )
    assert line.startswith("error: ")
    assert words in line
    assert contents(place) == before


def test_too_many_features_are_refused_before_they_are_computed(
    adapted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "MAX_FEATURES", 100)
    assert run(adapted) == 1
    assert "36 images with 8 features are too many to hold in memory; give at most 12" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("option", [("--held-out", "0"), ("--held-out", "95"), ("--seed", "-1")])
def test_values_out_of_range_are_refused(
    option: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path, *option)
    assert "must be" in capsys.readouterr().err


def test_recipes_are_listed_without_other_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert adapt.main(["--list-recipes"]) == 0
    assert "torchvision-v1" in capsys.readouterr().out


@pytest.mark.parametrize("step", ["adapt", "write_onnx", "_build"])
def test_an_interruption_leaves_the_files_as_they_were(
    step: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(place)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(adapt, step, interrupt)
    assert run(place) == 130
    assert contents(place) == before


def test_a_file_is_replaced_only_when_it_is_complete(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file"
    with replacing(file) as path:
        path.write_text("one")

    def write_half() -> None:
        with replacing(file) as path:
            path.write_text("tw")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert contents(tmp_path) == {"new/file": b"one"}


def test_a_graph_of_more_than_2_gib_is_written_in_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.repository.onnx_file.MAX_BYTES", 4000)
    model = convolved()
    weight = onnx.numpy_helper.from_array(np.ones(2000, np.float32), "large")
    model.graph.initializer.append(weight)
    files.write_onnx(model, tmp_path / "large.onnx")
    assert set(contents(tmp_path)) == {"large.onnx", "large.onnx.data"}
