"""Labels and recipe as this project writes them into an ONNX file, and reads them again.

A file with them needs no other description, and files beside it are not asked: the file may be in
the folder of the classifier that it was made from.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from onnx import ModelProto

from scripts.repository import labels
from scripts.repository.description import Description
from scripts.repository.metadata.fields import refused, whole
from scripts.repository.steps.preprocess.recipe import Recipe

PREFIX = "triton_imagenet."
LABELS, RECIPE = f"{PREFIX}labels", f"{PREFIX}recipe"


def write(
    model: ModelProto,
    names: Sequence[str],
    recipe: Recipe,
    **facts: Mapping[str, str | int | float],
) -> None:
    """Add the labels of all classes, and how images are preprocessed, to a file's metadata.

    `facts` are further keys, with what a user may want to know; they are not read.
    """
    fields = {key: value for key, value in asdict(recipe).items() if key != "decoding"}
    said = {LABELS: list(names), RECIPE: fields}
    for key, value in {**said, **{PREFIX + name: fact for name, fact in facts.items()}}.items():
        text = json.dumps(value, ensure_ascii=False, sort_keys=True)
        model.metadata_props.add(key=key, value=text)


def read(model: ModelProto) -> Description | None:
    """Read them; None if the file does not have both.

    Raises:
        BuildError: they were changed, so that they can no longer be read.
    """
    said = {entry.key: entry.value for entry in model.metadata_props}
    if not {LABELS, RECIPE} <= said.keys():
        return None
    origin = f"the file's metadata `{PREFIX}*`"
    try:
        recipe = whole(Recipe.from_json(said[RECIPE]))
        names = labels.from_value(json.loads(said[LABELS]), origin)
    except (AttributeError, TypeError, ValueError) as error:
        raise refused(origin, f"cannot use it: {error}") from error
    return Description(origin, recipe, names)
