"""Finds the ONNX file in a folder, and what the files beside it say."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from scripts.repository.description import Description
from scripts.repository.errors import BuildError
from scripts.repository.labels import read
from scripts.repository.metadata import custom_vision, huggingface, timm_config
from scripts.repository.metadata.fields import read_json
from scripts.repository.steps.preprocess.recipe import Size

# Files with labels, in the order in which they are believed.
LABELS = (
    "labels.txt",
    "labels.json",
    "labels.csv",
    "classes.txt",
    "classes.json",
    "class_names.txt",
    "class_names.json",
    "class_indices.json",
    "id2label.json",
    "synset.txt",
)
# Where the Hugging Face hub has ONNX files: beside config.json, or in this folder.
SUBFOLDER = "onnx"
PREFERRED = ("model.onnx", f"{SUBFOLDER}/model.onnx")


def find_onnx(path: Path) -> Path:
    """Return an ONNX file itself, or the one in a folder: model.onnx, or the only one.

    Raises:
        BuildError: there is no such path, or the folder has no ONNX file or several.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise BuildError(f"there is no file or folder {path}; give an ONNX file, or its folder")
    files = [*path.glob("*.onnx"), *path.glob(f"{SUBFOLDER}/*.onnx")]
    return path / choose((file.relative_to(path).as_posix() for file in files), str(path))


def choose(files: Iterable[str], origin: str) -> str:
    """Choose the ONNX file among the paths of a folder or repository.

    Raises:
        BuildError: there is none, or none of several is called model.onnx.
    """
    found = sorted(
        file
        for file in files
        if file.endswith(".onnx") and str(PurePosixPath(file).parent) in (".", SUBFOLDER)
    )
    if preferred := [name for name in PREFERRED if name in found]:
        return preferred[0]
    if len(found) > 1:
        raise BuildError(f"{origin} has several ONNX files: {', '.join(found)}; give one of them")
    if not found:
        raise BuildError(
            f"{origin} has no ONNX file; export one with: "
            f"optimum-cli export onnx --model {origin} FOLDER"
        )
    return found[0]


def describe(
    folder: Path,
    file: Path,
    *,
    size: Size | None = None,
    preprocessing: bool = True,
    labels: bool = True,
) -> list[Description]:
    """Read what the files in an ONNX file's folder say about it, the most specific first.

    Args:
        folder: the folder.
        file: the ONNX file.
        size: height and width that the graph takes, if they are fixed.
        preprocessing: whether the preprocessing is wanted; if not, it cannot be refused.
        labels: whether the labels are wanted; if not, they cannot be refused.

    Raises:
        BuildError: a file is damaged, or what is wanted cannot be used.
    """
    found: list[Description | None] = []
    for each in describing(folder):
        if preprocessing:
            found.append(huggingface.describe_preprocessing(each))
        config = each / huggingface.MODEL
        if config.is_file() and timm_config.is_timm(content := read_json(config)):
            wanted: dict[str, Any] = {"preprocessing": preprocessing, "labels": labels}
            origin = f"{config.name} of timm"
            found.append(timm_config.describe(content, origin, size=size, **wanted))
        found.append(huggingface.describe_model(each, labels=labels))
        if preprocessing:
            found.append(custom_vision.describe_folder(each))
        if labels:
            found.append(_labels(each, file))
    return [description for description in found if description]


def describing(folder: Path) -> list[Path]:
    """List the folders whose files describe an ONNX file in a folder.

    The one around it counts, too, if it has a preprocessor_config.json and this one has not, or if
    this one is called onnx, as on the Hugging Face hub.
    """
    around = folder.resolve().parent
    has_own = (folder / huggingface.PREPROCESSOR).is_file()
    is_inner = not has_own and (around / huggingface.PREPROCESSOR).is_file()
    return [folder, around] if is_inner or folder.resolve().name == SUBFOLDER else [folder]


def _labels(folder: Path, file: Path) -> Description | None:
    for name in (f"{file.stem}.txt", f"{file.stem}.names", *LABELS):
        if (folder / name).is_file():
            return Description(name, labels=read(folder / name))
    return None
