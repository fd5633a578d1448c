"""manifest.json: what a model repository holds and what it was made from."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.repository.errors import BuildError

FILE = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """One classifier. `parts` are its models in the repository, the public one first."""

    source: str
    source_sha256: str
    prepared_sha256: str
    opset: int
    ir_version: int
    classes: int
    scores: str
    recipe: dict[str, Any]
    labels: str
    parts: tuple[str, ...]


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
        return {
            name: Entry(**{**entry, "parts": tuple(entry["parts"])})
            for name, entry in models.items()
        }
    except (ValueError, KeyError, TypeError) as error:
        raise BuildError(f"{file} cannot be read ({error}); build into a new folder") from error


def write(repository: Path, entries: dict[str, Entry]) -> None:
    """Replace the manifest in one step."""
    models = {name: asdict(entry) for name, entry in entries.items()}
    text = json.dumps({"models": models}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    new = repository / f".{FILE}"
    new.write_text(text, "utf-8")
    new.replace(repository / FILE)
