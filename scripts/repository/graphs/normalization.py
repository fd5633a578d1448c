"""Warns about graphs that normalise pixels by themselves."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto

from scripts.repository.graphs import tensors
from scripts.repository.graphs.constants import Constants
from scripts.repository.graphs.signature import Signature
from scripts.repository.steps.preprocess.recipe import Recipe

Values = npt.NDArray[np.float64]

# Operators that keep values, or select some of them.
MOVING = frozenset(
    [
        *("Transpose", "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"),
        *("Slice", "Gather", "Pad", "Resize"),
    ]
)
# What is subtracted from values 0 to 255, or what they are divided by, exceeds this (Caffe's
# 103.939, 255, 127.5). Values that a recipe has normalised are rarely beyond 3.
LEVELS = 10
# What is subtracted from values 0 to 1, and what they are divided by. ImageNet's 0.406 to 0.485 and
# 0.224 to 0.229 are in the ranges, and so is 0.5.
CENTRES, WIDTHS = (0.3, 0.6), (0.15, 0.6)
MAX_CHANNELS = 3


@dataclass(frozen=True)
class _Affine:
    """The arithmetic `x * scale + offset`, with one value or one for each channel."""

    scale: Values
    offset: Values

    @property
    def centre(self) -> Values:
        """What is subtracted first."""
        return np.asarray(-self.offset / self.scale + 0.0)  # not -0.0

    @property
    def width(self) -> Values:
        """What the difference is divided by."""
        return np.asarray(np.abs(1 / self.scale))

    def __str__(self) -> str:
        parts = [
            f"{verb} {', '.join(f'{value:.6g}' for value in values)}"
            for verb, values, neutral in (
                ("subtract", self.centre, 0),
                ("divide by", self.width, 1),
            )
            if (values != neutral).any()
        ]
        return " and ".join(parts)


def warning(model: ModelProto, signature: Signature, recipe: Recipe) -> str | None:
    """Describe how the first nodes normalise the input if `recipe` normalises it, too.

    `model` is the file's own graph. Arithmetic with constants counts: subtracting 127.5 or Caffe's
    103.939, 116.779 and 123.68, dividing by 255, and ImageNet's mean and standard deviation. A
    BatchNormalization does not: the zoo's ResNet v2 and others have one as a trained layer.
    """
    affine = _first_arithmetic(model, signature.input)
    if np.abs(affine.centre).max() > LEVELS or affine.width.max() > LEVELS:
        values, option = "0 to 255", "--normalization none"
        fits = not tensors.is_normalized(recipe)
    elif _is_within(affine.centre, CENTRES) and _is_within(affine.width, WIDTHS):
        values, option = "0 to 1", "--pixel-range 0 1 --mean 0 --std 1"
        scale, offset = tensors.factors(recipe)
        fits = np.allclose(scale, 1 / 255) and not offset.any()
    else:
        return None
    if fits:
        return None
    return (
        f"the graph's first nodes {affine}, as for pixel values {values}, but the recipe "
        f"normalises the pixels, too; use {option}"
    )


def _is_within(values: Values, limits: tuple[float, float]) -> bool:
    return bool((values >= limits[0]).all() and (values <= limits[1]).all())


def _first_arithmetic(model: ModelProto, name: str) -> _Affine:
    """Combine the arithmetic with constants before the first other operator."""
    constants = Constants(model)
    affine = _Affine(np.ones(1), np.zeros(1))
    while node := _only_consumer(model, name):
        if node.op_type not in MOVING:
            changed = _after(affine, node, name, constants)
            if changed is None:
                break
            affine = changed
        name = node.output[0]
    return affine


def _only_consumer(model: ModelProto, name: str) -> NodeProto | None:
    nodes = [node for node in model.graph.node if name in node.input and node.op_type != "Shape"]
    return nodes[0] if len(nodes) == 1 else None


def _after(affine: _Affine, node: NodeProto, name: str, constants: Constants) -> _Affine | None:
    """Add a node to the arithmetic; None if it is something else."""
    others = [constants.get(each) for each in node.input if each != name]
    if len(others) != 1 or others[0] is None:
        return None
    value = others[0].astype(np.float64).reshape(-1)
    if value.size > MAX_CHANNELS:  # a mean image
        value = value.mean(keepdims=True)
    scale, offset = affine.scale, affine.offset
    is_first = node.input[0] == name
    if node.op_type == "Add":
        return _Affine(scale, offset + value)
    if node.op_type == "Sub" and is_first:
        return _Affine(scale, offset - value)
    if node.op_type == "Mul" and value.all():
        return _Affine(scale * value, offset * value)
    if node.op_type == "Div" and is_first and value.all():
        return _Affine(scale / value, offset / value)
    return None
