"""What the sources of a classifier say about it, and which of them is believed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Description:
    """What one source says about a classifier; it leaves out what it does not determine.

    Attributes:
        origin: the source as a user knows it: `preprocessor_config.json`, `--mean`.
        recipe: fields of `Recipe` by name.
        labels: one label for each class.
        scores: one of `graphs.scores.KINDS`.
    """

    origin: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    scores: str | None = None


def merge(descriptions: Iterable[Description]) -> tuple[Description, dict[str, str]]:
    """Combine descriptions; the first one that determines a field is believed.

    Returns:
        The description of all, and the origin of each of the recipe's fields that is determined,
        of `labels` and of `scores`.
    """
    fields: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for description in descriptions:
        others = {"labels": description.labels, "scores": description.scores}
        said = {**description.recipe, **others}
        for name, value in said.items():
            if value is not None and name not in fields:
                fields[name], origins[name] = value, description.origin
    labels, scores = fields.pop("labels", None), fields.pop("scores", None)
    return Description("all", fields, labels, scores), origins
