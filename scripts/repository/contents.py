"""The files of a classifier's models, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.repository import digests, tensorrt
from scripts.repository.config import Ensemble, Part, to_pbtxt
from scripts.repository.ensemble import (
    LABELS_FILE,
    ClassifierSpec,
    ensemble,
    onnx_part,
    pixels_part,
    postprocess_part,
    preprocess_part,
)

STEPS = Path(__file__).parent / "steps"
CODE = (".py", ".cu")
STEP_ROLES = ("preprocess", "postprocess")
VERSION = "1"

# The content of each file by its path in the model's folder; an empty folder ends in /.
Contents = dict[str, bytes]


@dataclass(frozen=True)
class Graphs:
    """The two graphs of a classifier, for its own tensors and for pixels.

    Each is a model.onnx, and a file with its weights if they exceed the size of an ONNX file.
    """

    onnx: Contents
    pixels: Contents


def of_classifier(specs: Sequence[ClassifierSpec], graphs: Graphs) -> dict[str, Contents]:
    """Write the models of a classifier, by name; `specs` differ in the number of crops only."""
    spec = specs[0]
    models = {
        spec.pixels_name: _graph(pixels_part(spec), spec, graphs.pixels),
        spec.onnx_name: _graph(onnx_part(spec), spec, graphs.onnx),
    }
    for each in specs:
        models |= {
            each.ensemble_name: _configuration(ensemble(each)) | {f"{VERSION}/": b""},
            each.preprocess_name: of_step("preprocess", each),
            each.postprocess_name: of_step("postprocess", each),
        }
    return models


def of_step(role: str, spec: ClassifierSpec) -> Contents:
    """Write the step in one of `STEP_ROLES`."""
    code = {
        f"{VERSION}/{file.name}": file.read_bytes()
        for file in sorted((STEPS / role).iterdir())
        if file.suffix in CODE
    }
    if role == "preprocess":
        return _configuration(preprocess_part(spec)) | code
    return _configuration(postprocess_part(spec)) | code | _labels(spec)


def step_name(role: str, spec: ClassifierSpec) -> str:
    """Name the step in one of `STEP_ROLES`."""
    return spec.preprocess_name if role == "preprocess" else spec.postprocess_name


def variants(role: str, spec: ClassifierSpec, count: int) -> list[ClassifierSpec]:
    """Number a shared step from 1; a step of the classifier's own has the same name in all."""
    numbers = range(1, count + 1)
    if role == "preprocess":
        return [replace(spec, preprocess_number=number) for number in numbers]
    return [replace(spec, postprocess_number=number) for number in numbers]


def sha256(contents: Contents) -> dict[str, str]:
    """Hash each file, as `digests.of_files` does when they are on the disk."""
    return {
        path: "" if path.endswith("/") else digests.of_bytes(data)
        for path, data in contents.items()
    }


def write(folder: Path, contents: Contents) -> None:
    """Write the files into a new folder."""
    for path, data in contents.items():
        if path.endswith("/"):
            (folder / path).mkdir(parents=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)


def _configuration(model: Part | Ensemble) -> Contents:
    return {"config.pbtxt": to_pbtxt(model).encode()}


def _graph(part: Part, spec: ClassifierSpec, files: Contents) -> Contents:
    if spec.tuning.engine == "tensorrt":
        folder = spec.tuning.engine_cache or tensorrt.DEFAULT_FOLDER
        part = tensorrt.accelerated(part, files, folder)
    graph = {f"{VERSION}/{name}": data for name, data in files.items()}
    return _configuration(part) | graph | _labels(spec)


def _labels(spec: ClassifierSpec) -> Contents:
    # A copy for each model, since a path out of the model's folder fails in object stores.
    return {LABELS_FILE: "".join(f"{label}\n" for label in spec.labels).encode()}
