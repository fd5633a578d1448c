"""What the sources of a classifier say about it, and which of them is believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from scripts.repository.steps.preprocess.recipe import Recipe

NOTHING: Mapping[str, Any] = MappingProxyType({})


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
    recipe: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    labels: tuple[str, ...] | None = None
    scores: str | None = None


@dataclass(frozen=True)
class Resolved:
    """The fields that several sources determine together.

    `origins` maps `labels`, `scores` and the names of the recipe's fields to the origin of each;
    it lacks those that no source determines, which have the defaults of `Recipe`, or are None.
    """

    recipe: Recipe
    labels: tuple[str, ...] | None
    scores: str | None
    origins: dict[str, str]


def resolve(descriptions: Sequence[Description]) -> Resolved:
    """Combine descriptions; the first one that determines a field is believed.

    Raises:
        ValueError: the fields of the recipe do not fit together.
    """
    fields: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for description in descriptions:
        said = {
            **description.recipe,
            "labels": description.labels,
            "scores": description.scores,
        }
        for name, value in said.items():
            if value is not None and name not in fields:
                fields[name] = value
                origins[name] = description.origin
    labels, scores = fields.pop("labels", None), fields.pop("scores", None)
    return Resolved(Recipe(**fields), labels, scores, origins)
