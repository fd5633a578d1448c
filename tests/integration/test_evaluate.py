"""`python -m scripts.evaluate` on a real server: known answers, wrong labels, interruptions."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from PIL import Image

from client import Classifier
from scripts import evaluate
from scripts.embedded import EmbeddedServer, Endpoints
from scripts.evaluation.reference import open_reference
from scripts.repository import builder, sources
from tests.commands import measured
from tests.conftest import ROOT
from tests.descriptions import said
from tests.graphs import CLASSES, FLEXIBLE, classifier
from tests.images import BROKEN, encode, png_text
from tests.integration.conftest import HASTE, add_birds, url

PICTURES = 24


@dataclass(frozen=True)
class Known:
    """Pictures, and the classes that `birds` gives each of them, best first."""

    labels: tuple[str, ...]
    pictures: tuple[bytes, ...]
    ranked: tuple[tuple[int, ...], ...]

    def save(self, folder: Path, number: int, rank: int, name: str | None = None) -> Path:
        """Write a picture into the folder of the class that `birds` gives it at a rank."""
        place = folder / self.labels[self.ranked[number][rank]]
        place.mkdir(parents=True, exist_ok=True)
        file = place / (name or f"{number:02}.png")
        file.write_bytes(self.pictures[number])
        return file


@pytest.fixture(scope="module")
def known(small_server: EmbeddedServer) -> Known:
    rng = np.random.default_rng(0)
    colours = [tuple(map(int, rng.integers(0, 256, 3))) for _ in range(PICTURES)]
    pictures = tuple(encode(Image.new("RGB", (48, 40), each)) for each in colours)
    with Classifier(url(small_server, "grpc"), model="birds", top_k=CLASSES) as birds:
        results = list(birds.stream(pictures))
    labels = {each.class_id: each.label for each in results[0].predictions}
    ranked = tuple(tuple(each.class_id for each in result.predictions) for result in results)
    assert len({each[0] for each in ranked}) > 3
    return Known(tuple(labels[number] for number in range(CLASSES)), pictures, ranked)


@pytest.fixture
def data(known: Known, tmp_path: Path) -> Path:
    """Twelve right labels, eight that are second and four that are last, and five broken images."""
    folder = tmp_path / "data"
    for number in range(PICTURES):
        known.save(folder, number, 0 if number < 12 else 1 if number < 20 else CLASSES - 1)
    for name, content in BROKEN.items():
        known.save(folder, 0, 0, f"{name}.jpg").write_bytes(content)
    return folder


Run = Callable[..., int]


@pytest.fixture
def run(small_server: EmbeddedServer, data: Path, tmp_path: Path) -> Run:
    """Evaluate `birds` on the data in this process; return the exit code."""

    def run(*options: object, at: str = url(small_server, "grpc"), models: str = "birds") -> int:
        arguments = ["--url", at, "--output", tmp_path / "out", *options]
        if "--data" not in options:
            arguments += ["--data", data]
        return evaluate.main([*map(str, arguments), "--models", *models.split()])

    return run


def report(folder: Path) -> Any:
    """Read the report, without what is measured in seconds."""
    values = json.loads((folder / "report.json").read_text())
    for model in values["models"].values():
        assert model.pop("images_per_second") > 0
    return values


def test_wrong_labels_and_broken_images_give_the_accuracy_that_is_known(
    run: Run,
    small_server: EmbeddedServer,
    protocol: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(at=url(small_server, protocol)) == 0
    birds = report(tmp_path / "out")["models"]["birds"]
    total = PICTURES + len(BROKEN)
    assert (birds["images"], birds["top1"]["count"], birds["top5"]["count"]) == (total, 12, 20)
    assert birds["top1"]["value"] == 12 / total
    assert {Path(each["name"]).stem for each in birds["failures"]} == set(BROKEN)
    assert all(each["reason"] for each in birds["failures"])
    assert all(pair["label"] != pair["predicted"] for pair in birds["most_confused"])
    assert "published" not in birds
    printed = capsys.readouterr()
    assert printed.err == ""
    for text in ("41.38%", "Most confused pairs of birds", "half a JPEG.jpg", "count as wrong"):
        assert text in printed.out
    assert "| birds | top-1 | 41.38% |" in (tmp_path / "out" / "report.md").read_text()
    with Image.open(tmp_path / "out" / "birds-confusion.png") as picture:
        assert picture.format == "PNG"


def test_a_finished_evaluation_is_reported_again_and_begun_anew(
    run: Run, data: Path, known: Known, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "out" / "birds.jsonl"
    assert run() == 0
    first, written = report(tmp_path / "out"), journal.read_bytes()
    capsys.readouterr()
    assert run("--fail-under", "41.4") == 1
    assert (report(tmp_path / "out"), journal.read_bytes()) == (first, written)
    error = capsys.readouterr().err
    assert "all 29 images are in" in error
    assert error.endswith("error: top-1 accuracy below 41.4%: birds 41.38%\n")
    assert run("--restart", "--fail-under", "41.3") == 0
    assert (report(tmp_path / "out"), capsys.readouterr().err) == (first, "")
    known.save(data, 0, 0, "another.png")
    assert run() == 1
    assert "another data set (29 images, now 30)" in capsys.readouterr().err


def test_a_limit_takes_images_from_all_over_the_data(run: Run, tmp_path: Path) -> None:
    assert run("--limit", 10) == 0
    assert report(tmp_path / "out")["data"]["images"] == 10
    lines = (tmp_path / "out" / "birds.jsonl").read_text().splitlines()[1:]
    names = [json.loads(line)["name"] for line in lines]
    assert len({Path(name).parent for name in names}) > 2


def test_the_reference_agrees_with_what_is_served(
    run: Run, small_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = ["--reference", small_repository.parent / "birds.onnx"]
    options = [*reference, "--model-repository", small_repository]
    assert run(*options, "--fail-under-agreement", 100) == 0
    (agreement,) = report(tmp_path / "out")["agreements"]
    assert (agreement["other"], agreement["top1"]["count"]) == ("the reference", PICTURES)
    assert (agreement["gain"], agreement["p"]) == (0, 1)
    assert 0 <= agreement["mean"] <= agreement["largest"] < 0.01
    printed = capsys.readouterr().out
    assert "Agreement" in printed
    assert f"{len(BROKEN)} of 29 images were not compared with the reference" in printed
    assert run() == 1
    assert "another reference, or without one" in capsys.readouterr().err


def test_a_least_agreement_is_not_met_by_images_that_all_failed(
    run: Run, small_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for name, content in BROKEN.items():
        (folder / f"{name}.jpg").write_bytes(content)
    reference = ["--reference", small_repository.parent / "birds.onnx"]
    options = ["--data", folder, *reference, "--model-repository", small_repository]
    assert run(*options) == 0
    assert run(*options, "--fail-under-agreement", 1) == 1
    error = "error: no agreement with the reference, as no image can be compared: birds\n"
    assert capsys.readouterr().err.endswith(error)


def test_images_without_labels_are_compared(
    run: Run,
    small_repository: Path,
    known: Known,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, content in enumerate(known.pictures[:5]):
        (folder / f"{number}.png").write_bytes(content)
    assert run("--data", folder) == 1
    assert "no labels were found" in capsys.readouterr().err
    reference = ["--reference", small_repository.parent / "birds.onnx"]
    assert run("--data", folder, *reference, "--model-repository", small_repository) == 0
    found = report(tmp_path / "out")
    assert "top1" not in found["models"]["birds"]
    assert found["agreements"][0]["order"]["value"] == 1
    assert run("--data", folder, *reference, "--fail-under", 50) == 1


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the birds, other weights for the same classes, and other classes."""
    folder = tmp_path_factory.mktemp("several")
    repository = folder / "model_repository"
    add_birds(repository, folder)
    add_birds(repository, folder, "two_birds", classes=2)
    weight = np.random.default_rng(7).standard_normal((3, CLASSES)).astype(np.float32)
    file = folder / "new_birds.onnx"
    onnx.save(classifier(FLEXIBLE, initializers={"weight": weight}), file)
    builder.add(repository, sources.from_file(file, "new_birds", said()))
    return repository


def test_models_are_compared_and_a_lost_server_interrupts(  # noqa: PLR0917
    run: Run,
    several: Path,
    many: Path,
    tmp_path: Path,
    small_server: EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    endpoints = Endpoints.free()
    options = {"at": f"http://{endpoints.at('http')}", "models": "birds new_birds"}
    with EmbeddedServer(several, endpoints=endpoints, arguments=HASTE):
        assert run(**options) == 0
        found = report(tmp_path / "out")
        (agreement,) = found["agreements"]
        tops = [found["models"][name]["top1"]["count"] for name in ("birds", "new_birds")]
        assert (agreement["model"], agreement["other"]) == ("new_birds", "birds")
        assert agreement["gain"] == pytest.approx((tops[1] - tops[0]) / 29)
        assert 0 < agreement["top1"]["value"] < 0.9
        assert agreement["largest"] is None
        assert "percentage points below birds in top-1" in capsys.readouterr().out
        assert run(**options | {"models": "birds two_birds"}) == 1
        assert "birds and two_birds have different classes" in capsys.readouterr().err
        assert run(**options | {"models": "planes"}) == 1
        assert "it has: birds, new_birds, two_birds" in capsys.readouterr().err

        file = several.parent / "birds.onnx"  # not that of new_birds
        other = open_reference("birds", several, file)
        monkeypatch.setattr(evaluate, "open_reference", lambda *_, **__: other)
        low = ["--reference", "--model-repository", several, "--output", tmp_path / "low"]
        assert run(*low, "--fail-under-agreement", 95, **options | {"models": "new_birds"}) == 1
        error = "error: agreement with the reference below 95%: new_birds "
        assert error in capsys.readouterr().err

        process = started(many, tmp_path / "lost", options["at"], "--limit", "800", "--retries=1")
        wait_for(tmp_path / "lost" / "birds.jsonl", 100, process)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.fullmatch(
        r"error: birds, after [\d,]+ of 800 images: http://.*; "
        r"run the same command again to continue\n",
        error,
    )
    monkeypatch.undo()
    assert run("--data", many, "--limit", 800, "--output", tmp_path / "lost") == 0
    assert re.match(r"birds: continues after [\d,]+ of 800 images\n", capsys.readouterr().err)
    check_many(tmp_path / "lost", 800)


MANY = 10_000


@pytest.fixture(scope="module")
def many(known: Known, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10,000 images of 20 kB; half of them have the right label, half the last one."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(PICTURES):
        image = Image.open(io.BytesIO(known.pictures[number]))
        content = encode(image, "PNG", pnginfo=png_text(20_000))
        file = known.save(folder, number, 0 if number % 2 else CLASSES - 1)
        file.write_bytes(content)
        for copy in range(number + PICTURES, MANY, PICTURES):
            os.link(file, file.with_name(f"{copy:05}.png"))
    return folder


def check_many(output: Path, images: int) -> None:
    """Compare the report of an evaluation that was interrupted with what is known."""
    birds = report(output)["models"]["birds"]
    journal = (output / "birds.jsonl").read_text().splitlines()[1:]
    names = [Path(json.loads(line)["name"]).stem for line in journal]
    right = sum(int(name) % 2 for name in names)
    assert len(set(names)) == len(names) == images
    assert (birds["images"], birds["failures"]) == (images, [])
    assert (birds["top1"]["count"], birds["top5"]["count"]) == (right, right)


def started(
    data: Path, output: Path, at: str, *options: str, command: Sequence[str] = ()
) -> subprocess.Popen[str]:
    command = command or measured("scripts.evaluate")
    options = ("--data", str(data), "--output", str(output), *options)
    return subprocess.Popen(
        [*command, "--models", "birds", "--url", at, *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(journal: Path, lines: int, process: subprocess.Popen[str]) -> None:
    while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
        assert process.poll() is None
        time.sleep(0.05)


def test_ten_thousand_images_need_little_memory_and_survive_an_interruption(
    small_server: EmbeddedServer, many: Path, tmp_path: Path
) -> None:
    options = (many, tmp_path, url(small_server, "grpc"))
    journal = tmp_path / "birds.jsonl"
    process = started(*options)
    wait_for(journal, 500, process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.match(r"stopped after [\d,]+ of 10,000 images of birds; the same command", error)
    with journal.open("ab") as torn:  # as SIGKILL leaves it
        torn.write(b'{"name": "torn')

    unmeasured = [sys.executable, "-m", "scripts.evaluate"]  # coverage takes a third of the time
    process = started(*options, command=unmeasured)
    wait_for(journal, 2000, process)
    before = psutil.Process(process.pid).memory_info().rss
    wait_for(journal, 9500, process)
    after = psutil.Process(process.pid).memory_info().rss
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert (after - before) / 2**20 < 30  # the images themselves are 130 MiB
    check_many(tmp_path, MANY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fail-under-agreement", 90], "--fail-under-agreement needs --reference"),
        (["--header", "Authorization"], "use a form such as 'Authorization: Bearer TOKEN'"),
        (["--header", "A B: c"], "invalid header name 'A B'"),
        (["--key", "key.pem"], "give --cert and --key"),
        (["--ca", "nowhere.pem"], "nowhere.pem is not a valid CA bundle"),
        (["--labels", ROOT / "LICENSE"], "has an empty line or label"),
        (["--reference"], "give the repository that is served with --model-repository"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run: Run, options: list[object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*options) == 1
    error = capsys.readouterr().err
    assert message in error
    assert (error[:7], error.count("\n")) == ("error: ", 1)


def test_labels_come_from_a_file_if_there_is_one(
    run: Run, data: Path, known: Known, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"bird of kind {letter}" for letter in "abcdefghij"]
    for label, name in zip(known.labels, names, strict=True):
        if (data / label).exists():
            (data / label).rename(data / name)
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(names))
    assert run("--labels", labels) == 0
    birds = report(tmp_path / "out")["models"]["birds"]
    assert birds["top1"]["count"] == 12
    assert {pair["label"] for pair in birds["most_confused"]} <= set(names)
    labels.write_text("\n".join(names[:9]))
    assert run("--labels", labels) == 1
    assert "labels.txt has 9 labels; birds has 10" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_one_line(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--retries", 1, at=Endpoints.free().at("grpc")) == 1
    error = capsys.readouterr().err
    assert error.endswith("start it with python -m scripts.serve, or give its --url\n")
    assert error.count("\n") == 1
