"""manifest.json: the classifiers of a model repository and what they were built from."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.repository.errors import BuildError
from scripts.repository.tuning import Tuning

FILE = "manifest.json"
README = "README.md"
# The models of a classifier; `onnx` is not a step of the ensemble.
ROLES = ("ensemble", "preprocess", "pixels", "postprocess", "onnx")


@dataclass(frozen=True)
class Quantization:
    """What an INT8 graph was calibrated on, and how well it agrees with the FP32 graph.

    `images_sha256` is the SHA-256 over the SHA-256 of each of the `images` files. For `agreeing` of
    `compared` images both graphs give the same class the highest score; `held_out` tells whether
    those images were excluded from calibration.
    """

    images: int
    images_sha256: str
    compared: int
    agreeing: int
    held_out: bool


@dataclass(frozen=True)
class Entry:
    """One classifier.

    `parts` maps each of `ROLES` to the name of a model. `precision` is `fp32`, or `int8` with a
    `quantization`. `inputs_sha256` is a digest of everything that the classifier was built from,
    and `files_sha256` one of the files of all its parts.
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
    tuning: Tuning | None = None
    inputs_sha256: str = ""
    files_sha256: str = ""


def read(repository: Path) -> dict[str, Entry]:
    """Read the entries by classifier; a new folder, or one with only a README.md, has no entries.

    Raises:
        BuildError: the folder is not a model repository, or the manifest is damaged.
    """
    file = repository / FILE
    if not file.exists():
        if repository.exists() and not _is_empty(repository):
            raise BuildError(
                f"{repository} is not a model repository: it has no {FILE}; "
                "choose another folder with --output"
            )
        return {}
    try:
        models = json.loads(file.read_text("utf-8"))["models"]
        return {name: _entry(fields) for name, fields in models.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise BuildError(f"cannot read {file} ({error}); build into a new folder") from error


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and all(path.name == README for path in folder.iterdir())


def _entry(fields: dict[str, Any]) -> Entry:
    if isinstance(fields["parts"], list):  # of an older version, in the order of the roles
        parts = dict(zip(ROLES, fields["parts"], strict=True))
        fields = {**fields, "parts": parts, "tuning": None}
    quantization, tuning = fields.get("quantization"), fields.get("tuning")
    nested = {
        "quantization": Quantization(**quantization) if quantization else None,
        "tuning": Tuning(**tuning) if tuning else None,
    }
    return Entry(**{**fields, **nested})


def write(repository: Path, entries: dict[str, Entry]) -> None:
    """Replace the manifest atomically."""
    models = {name: asdict(entry) for name, entry in entries.items()}
    text = json.dumps({"models": models}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    new = repository / f".{FILE}"
    new.write_text(text, "utf-8")
    new.replace(repository / FILE)
