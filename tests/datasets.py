"""Data sets in the layouts that people have them in, of pictures with known labels."""

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from scripts.evaluation.datasets import Dataset

ANIMALS = ("n02123045 tabby, tabby cat", "n02124075 Egyptian cat", "n02085620 Chihuahua")
IDS = tuple(label.split()[0] for label in ANIMALS)
# The labels of ImageNet's first validation images, in three numberings.
FIRST_IDS = ("n01751748", "n09193705", "n02105855", "n04263257", "n03125729")
FIRST_INDICES = (65, 970, 230, 809, 516)
FIRST_ILSVRC = (490, 361, 171, 822, 297)


def picture(number: int = 0) -> bytes:
    """A small PNG, different for each number."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256 % 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def fill(folder: Path, names: Iterable[str]) -> Path:
    """Write a picture under each of the names."""
    for number, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
    return folder


def validation_names(count: int = len(FIRST_IDS)) -> list[str]:
    return [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, count + 1)]


def write_tar(file: Path, members: Mapping[str, bytes], **options: object) -> Path:
    with tarfile.open(file, "w", **options) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


def labels_of(dataset: Dataset) -> dict[str, int | None]:
    return {sample.name: sample.label for sample in dataset.samples()}
