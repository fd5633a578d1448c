"""manifest.json: what a model repository holds and what it was made from."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.repository.errors import BuildError
from scripts.repository.tuning import Tuning

FILE = "manifest.json"
# The models of a classifier: what each of them does in its ensemble. `onnx` is not part of it.
ROLES = ("ensemble", "preprocess", "pixels", "postprocess", "onnx")


@dataclass(frozen=True)
class Quantization:
    """What an INT8 graph was calibrated on, and how far it agrees with the FP32 one.

    `images_sha256` is over the sha256 of each of the `images` files. Of `compared` images
    `agreeing` got the same best class; `held_out` tells whether those were not calibrated on.
    """

    images: int
    images_sha256: str
    compared: int
    agreeing: int
    held_out: bool


@dataclass(frozen=True)
class Entry:
    """One classifier. `parts` maps each role to the model that fills it.

    `precision` is `fp32`, or `int8` with its `quantization`; `tuning` is what it was fitted to.
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
    # What older manifests do not say.
    precision: str = "fp32"
    quantization: Quantization | None = None
    tuning: Tuning | None = None


def read(repository: Path) -> dict[str, Entry]:
    """Read the entries by classifier; none where there is no repository yet.

    Raises:
        BuildError: the folder holds something else.
    """
    file = repository / FILE
    if not file.exists():
        if repository.exists() and (not repository.is_dir() or any(repository.iterdir())):
            raise BuildError(
                f"{repository} is something else than a model repository: it has no {FILE}; "
                "choose another with --output"
            )
        return {}
    try:
        models = json.loads(file.read_text("utf-8"))["models"]
        return {name: _entry(fields) for name, fields in models.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise BuildError(f"{file} cannot be read ({error}); build into a new folder") from error


def _entry(fields: dict[str, Any]) -> Entry:
    made, fitted, parts = fields.get("quantization"), fields.get("tuning"), fields["parts"]
    read = {
        # Older manifests list the names in the order of the roles.
        "parts": parts if isinstance(parts, dict) else dict(zip(ROLES, parts, strict=True)),
        "quantization": Quantization(**made) if made else None,
        "tuning": Tuning(**fitted) if fitted else None,
    }
    return Entry(**{**fields, **read})


def write(repository: Path, entries: dict[str, Entry]) -> None:
    """Replace the manifest in one step."""
    models = {name: asdict(entry) for name, entry in entries.items()}
    text = json.dumps({"models": models}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    new = repository / f".{FILE}"
    new.write_text(text, "utf-8")
    new.replace(repository / FILE)
