"""manifest.json: the classifiers of a model repository, what they were built from, their files.

Version 2 is `{"version": 2, "models": {NAME: entry}, "parts": {PART: {"files": {PATH: sha256}}}}`.
Version 1 has neither `version` nor `parts`.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from scripts.repository import digests
from scripts.repository.errors import BuildError
from scripts.repository.steps.preprocess.recipe import Recipe
from scripts.repository.tuning import Tuning

FILE = "manifest.json"
VERSION = 2
README = "README.md"
# The models of a classifier; `onnx` is not a step of the ensemble.
ROLES = ("ensemble", "preprocess", "pixels", "postprocess", "onnx")
GRAPH_ROLES = ("pixels", "onnx")
# With ten crops, a second ensemble with steps of its own uses the same graph.
TEN_CROP_ROLES = ("ensemble_10crop", "preprocess_10crop", "postprocess_10crop")

# The SHA-256 of each file of a part, by its path in the part: what `digests.of_files` returns.
Files = dict[str, str]


@dataclass(frozen=True)
class Quantization:
    """What an INT8 graph was calibrated on.

    `images_sha256` is the SHA-256 over the SHA-256 of each of the `images` files.
    """

    images: int
    images_sha256: str


@dataclass(frozen=True)
class Comparison:
    """How well what is served agrees with the FP32 graph on onnxruntime.

    FP16 is rounded as on a GPU. For `agreeing` of `compared` images both give the same class the
    highest score; `difference` is the largest one between the probabilities of a class. `images`
    says which images these are.
    """

    compared: int
    agreeing: int
    difference: float
    images: str


@dataclass(frozen=True)
class Choice:
    """The engine that was chosen by measuring.

    `ratio` is how many times as fast OpenVINO was as onnxruntime.
    """

    engine: str
    ratio: float


@dataclass(frozen=True)
class Entry:
    """One classifier.

    `parts` maps each of `ROLES` to the name of a model, and with 10 `crops` each of
    `TEN_CROP_ROLES`. `precision` is one of `PRECISIONS`; `int8` has a `quantization` and a
    `comparison`, `fp16` a `comparison` unless the file is in FP16 itself, and `bf16` one if the CPU
    that built it has bfloat16 instructions. `choice` is how the engine of `tuning` was chosen, if
    by measuring.
    `inputs_sha256` is a digest of everything that the classifier was built from.
    `output` is the tensor that holds the scores in the file, of the kind `scores`, and `layout` the
    order of the dimensions of its input, NCHW or NHWC.
    `origins` tells where the recipe's fields and the kind of scores come from; what it lacks was
    assumed. `batches` is `variable` or `loop`, and `difference` the largest one found
    between the scores of the original graph and the prepared one, relative to their spread.
    """

    source: str
    source_sha256: str
    prepared_sha256: str
    opset: int
    ir_version: int
    classes: int
    scores: str
    recipe: dict[str, Any]
    labels: str
    parts: dict[str, str]
    # Absent from manifests that an older version wrote.
    precision: str = "fp32"
    quantization: Quantization | None = None
    comparison: Comparison | None = None
    choice: Choice | None = None
    tuning: Tuning | None = None
    inputs_sha256: str = ""
    origins: dict[str, str] = field(default_factory=dict)
    labels_origin: str = ""
    output: str = ""
    layout: str = ""
    batches: str = "variable"
    difference: float = 0.0
    crops: int = 1

    @property
    def engine(self) -> str:
        """As that of the tuning; older versions recorded none, and had onnxruntime only."""
        return (self.tuning or Tuning()).engine

    def to_recipe(self) -> Recipe:
        """Read the recipe, also that of an older version."""
        return Recipe.from_json(json.dumps(self.recipe))

    @property
    def preprocess(self) -> str:
        """The device that decodes images, one of `DEVICES`."""
        return (self.tuning or Tuning()).preprocess

    @property
    def backend(self) -> str:
        """Triton's backend for the graphs, one of `ENGINES`."""
        return (self.tuning or Tuning()).backend


# The entry's fields that are objects of their own.
NESTED: dict[str, type[Any]] = {
    "quantization": Quantization,
    "comparison": Comparison,
    "choice": Choice,
    "tuning": Tuning,
}


def read(repository: Path) -> dict[str, Entry]:
    """Read the entries by classifier; a new folder, or one with only a README.md, has no entries.

    Raises:
        BuildError: the folder is not a model repository, or the manifest is damaged.
    """
    content = _load(repository)
    try:
        return {name: _entry(values) for name, values in content["models"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(repository, error) from error


def parts(repository: Path) -> dict[str, Files]:
    """Read the files of each part; parts that an older version wrote are absent.

    Raises:
        BuildError: as `read` raises.
    """
    content = _load(repository)
    try:
        return {name: dict(part["files"]) for name, part in content["parts"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(repository, error) from error


def verify(repository: Path, names: Iterable[str]) -> list[str]:
    """Compare all files of some parts with the manifest; each file is read once.

    Returns:
        The parts that cannot be verified, because an older version wrote them.

    Raises:
        BuildError: a file is missing, changed or unknown; the message names it.
        OSError: a file cannot be read.
    """
    recorded = parts(repository)
    unknown = []
    for name in names:
        if name not in recorded:
            unknown.append(name)
        elif difference := digests.difference(repository / name, recorded[name]):
            raise BuildError(f"{repository / name}/{difference}; build the repository again")
    return unknown


def write(repository: Path, entries: dict[str, Entry], parts: dict[str, Files]) -> None:
    """Replace the manifest atomically."""
    content = {
        "version": VERSION,
        "models": {name: asdict(entry) for name, entry in entries.items()},
        "parts": {name: {"files": files} for name, files in parts.items()},
    }
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    new = repository / f".{FILE}"
    new.write_text(text, "utf-8")
    new.replace(repository / FILE)


def _load(repository: Path) -> dict[str, Any]:
    file = repository / FILE
    if not file.exists():
        if repository.exists() and not _is_empty(repository):
            raise BuildError(
                f"{repository} is not a model repository: it has no {FILE}; choose another folder"
            )
        return {"version": VERSION, "models": {}, "parts": {}}
    try:
        content: dict[str, Any] = {"version": 1, "parts": {}} | json.loads(file.read_text("utf-8"))
    except (TypeError, ValueError) as error:
        raise _damaged(repository, error) from error
    if content["version"] not in {1, VERSION}:
        raise BuildError(f"{file} has version {content['version']}, of a newer release; upgrade")
    return content


def _damaged(repository: Path, error: Exception) -> BuildError:
    return BuildError(f"cannot read {repository / FILE} ({error}); build into a new folder")


def _is_empty(folder: Path) -> bool:
    # Hidden entries are those of tools, such as .git and .ipynb_checkpoints.
    return folder.is_dir() and all(
        path.name == README or path.name.startswith(".") for path in folder.iterdir()
    )


def _entry(values: dict[str, Any]) -> Entry:
    if isinstance(values["parts"], list):  # of an older version, in the order of the roles
        parts = dict(zip(ROLES, values["parts"], strict=True))
        values = {**values, "parts": parts, "tuning": None}
    made = _known(Entry, values)
    for name, kind in NESTED.items():
        if values.get(name):
            made[name] = kind(**_known(kind, values[name]))
    return Entry(**made)


def _known(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """Leave out fields that only an older version has."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in values.items() if name in names}
