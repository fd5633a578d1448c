"""Finds the ONNX file in a folder, and what the files beside it say."""

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from scripts.repository import labels
from scripts.repository.description import Description
from scripts.repository.errors import BuildError
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
    folder: Path, file: Path, *, size: Size | None = None, preprocessing: bool = True
) -> list[Description]:
    """Read what the files in an ONNX file's folder say about it, the most specific first.

    If the folder is called onnx, as on the Hugging Face hub, the one around it counts, too.

    Args:
        folder: the folder.
        file: the ONNX file.
        size: height and width that the graph takes, if they are fixed.
        preprocessing: whether the preprocessing is wanted; if not, it cannot be refused.

    Raises:
        BuildError: a file is damaged, or a recipe cannot say the preprocessing.
    """
    folders = [folder, folder.resolve().parent] if folder.resolve().name == SUBFOLDER else [folder]
    return [
        description
        for each in folders
        for description in _described(each, file, size, preprocessing)
    ]


def _described(
    folder: Path, file: Path, size: Size | None, preprocessing: bool
) -> Iterator[Description]:
    if preprocessing and (described := huggingface.describe_preprocessing(folder)):
        yield described
    config = folder / huggingface.MODEL
    if config.is_file() and timm_config.is_timm(content := read_json(config)):
        origin = f"{config.name} of timm"
        yield timm_config.describe(content, origin, size=size, preprocessing=preprocessing)
    if described := huggingface.describe_model(folder):
        yield described
    if preprocessing and (described := custom_vision.describe_folder(folder)):
        yield described
    for name in (f"{file.stem}.txt", f"{file.stem}.json", f"{file.stem}.names", *LABELS):
        if (folder / name).is_file():
            yield Description(name, labels=labels.read(folder / name))
            return
