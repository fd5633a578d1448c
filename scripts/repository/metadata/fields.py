"""What the readers of metadata share: files, and the fields of a whole recipe."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from scripts.repository.errors import BuildError
from scripts.repository.steps.preprocess.recipe import Recipe, Size

ADVICE = "describe the preprocessing with --recipe NAME or FILE"


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BuildError: the file cannot be read, or is no JSON object.
    """
    try:
        value = json.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise BuildError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{file} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BuildError(f"{file} is not a JSON object")
    return value


def whole(recipe: Recipe) -> dict[str, Any]:
    """Return all fields of a recipe, but not how images are decoded, which the user chooses."""
    names = (field.name for field in fields(Recipe) if field.name != "decoding")
    return {name: getattr(recipe, name) for name in names}


def refused(origin: str, problem: str) -> BuildError:
    """Make the error for preprocessing that cannot be honoured."""
    return BuildError(f"{origin}: {problem}; {ADVICE}")


def square(side: int) -> Size:
    """Return the size of a square."""
    return side, side
