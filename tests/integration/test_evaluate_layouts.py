"""`python -m scripts.evaluate` on a real server: one set of images in each layout of ImageNet's."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from client import Classifier
from scripts import evaluate
from scripts.embedded import EmbeddedServer
from scripts.repository.ensemble import IMAGENET_LABELS
from tests.datasets import validation_names, write_tar
from tests.graphs import CLASSES
from tests.images import encode
from tests.integration.conftest import url

PICTURES, WRONG = 12, 3
# `birds` has ten classes, which are taken for the first ten of ImageNet.
LABELS = IMAGENET_LABELS[:CLASSES]
IDS = [label.split()[0] for label in LABELS]
NAMES = validation_names(PICTURES)
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

# The pictures, and the class that each is labelled with.
Labelled = Sequence[tuple[bytes, int]]


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def in_folders(images: Labelled) -> dict[str, bytes]:
    return {f"{IDS[label]}/{at}.JPEG": data for at, (data, label) in enumerate(images)}


def flat(images: Labelled, truth: str, lines: list[str]) -> dict[str, bytes]:
    pictures = {name: data for name, (data, _) in zip(NAMES, images, strict=True)}
    return {**pictures, truth: "".join(f"{line}\n" for line in lines).encode()}


def folders(images: Labelled, place: Path) -> Path:
    return fill(place, in_folders(images))


def file_names(images: Labelled, place: Path) -> Path:
    return fill(place, {f"{IDS[label]}_{at}.JPEG": data for at, (data, label) in enumerate(images)})


def devkit(images: Labelled, place: Path) -> Path:
    """Number the classes from 1 in another order than that of the classifier."""
    numbered = [f"{each} {CLASSES - at} name" for at, each in enumerate(IDS)]
    fill(place, {"map_clsloc.txt": "\n".join(numbered).encode()})
    numbers = [str(CLASSES - label) for _, label in images]
    return fill(place, flat(images, "ILSVRC2012_validation_ground_truth.txt", numbers))


def kaggle(images: Labelled, place: Path) -> Path:
    rows = [
        f"{name.removesuffix('.JPEG')},{IDS[label]} 1 1 9 9"
        for name, (_, label) in zip(NAMES, images, strict=True)
    ]
    return fill(place, flat(images, "LOC_val_solution.csv", ["ImageId,PredictionString", *rows]))


def tensorflow(images: Labelled, place: Path) -> Path:
    lines = [IDS[label] for _, label in images]
    return fill(place, flat(images, "imagenet_2012_validation_synset_labels.txt", lines))


def caffe(images: Labelled, place: Path) -> Path:
    fill(place, {"synsets.txt": "\n".join(IDS).encode()})
    lines = [f"{name} {label}" for name, (_, label) in zip(NAMES, images, strict=True)]
    return fill(place, flat(images, "val.txt", lines))


def csv(images: Labelled, place: Path) -> Path:
    lines = [f"{name},{IDS[label]}" for name, (_, label) in zip(NAMES, images, strict=True)]
    return fill(place, flat(images, "labels.csv", ["file,label", *lines]))


def tar(images: Labelled, place: Path) -> Path:
    place.mkdir()
    return write_tar(place / "ILSVRC2012_img_val.tar", in_folders(images))


def parquet(images: Labelled, place: Path) -> Path:
    place.mkdir()
    rows = [{"bytes": data, "path": "x.JPEG"} for data, _ in images]
    columns = {"image": pa.array(rows, IMAGE_TYPE), "label": [label for _, label in images]}
    texts = [label.partition(" ")[2] for label in LABELS]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": texts}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    file = place / "validation-00000-of-00001.parquet"
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), file)
    return file


LAYOUTS = (folders, file_names, devkit, kaggle, tensorflow, caffe, csv, tar, parquet)


@pytest.fixture(scope="module")
def images(small_server: EmbeddedServer) -> Labelled:
    """Pictures with the class that `birds` gives them, but for a few with another one."""
    rng = np.random.default_rng(1)
    colours = [tuple(map(int, rng.integers(0, 256, 3))) for _ in range(PICTURES)]
    pictures = [encode(Image.new("RGB", (48, 40), colour)) for colour in colours]
    with Classifier(url(small_server, "grpc"), model="birds") as birds:
        tops = [result.top.class_id for result in birds.stream(pictures)]
    return [
        (picture, (top + 1) % CLASSES if at < WRONG else top)
        for at, (picture, top) in enumerate(zip(pictures, tops, strict=True))
    ]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_gives_the_same_accuracy(
    layout: Callable[[Labelled, Path], Path],
    images: Labelled,
    small_server: EmbeddedServer,
    tmp_path: Path,
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(LABELS))
    output = tmp_path / "out"
    options = ["--data", layout(images, tmp_path / "data"), "--labels", labels, "--output", output]
    server = ["--url", url(small_server, "grpc"), "--models", "birds"]
    assert evaluate.main([*map(str, options), *server]) == 0
    report: dict[str, Any] = json.loads((output / "report.json").read_text())
    birds = report["models"]["birds"]
    assert birds["failures"] == []
    assert (birds["top1"]["count"], birds["top1"]["total"]) == (PICTURES - WRONG, PICTURES)
