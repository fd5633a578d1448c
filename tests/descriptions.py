"""Descriptions of classifiers, as the options of `build_repository` make them."""

from typing import Any

from scripts.repository.description import Description


def said(
    *, labels: tuple[str, ...] | None = None, scores: str | None = None, **recipe: object
) -> Description:
    """Describe some fields; a number for `resize` or `crop` stands for both sides."""
    fields: dict[str, Any] = {
        name: (value, value) if name in {"resize", "crop"} and isinstance(value, int) else value
        for name, value in recipe.items()
    }
    return Description("the test", fields, labels, scores)
