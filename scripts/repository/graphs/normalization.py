"""Warns about graphs that normalise pixels by themselves."""

from onnx import ModelProto

from scripts.repository.graphs.signature import Signature
from scripts.repository.steps.preprocess.recipe import Recipe


def warning(model: ModelProto, signature: Signature, recipe: Recipe) -> str | None:
    """Describe how the first nodes normalise the input if `recipe` normalises it, too."""
    del model, signature, recipe
    return None
