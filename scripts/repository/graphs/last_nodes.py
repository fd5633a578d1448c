"""What the last nodes of a classifier's graph do to its scores."""

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from scripts.repository.graphs.constants import Constants

Producers = dict[str, NodeProto]

# Operators that move or select numbers.
MOVING = frozenset(
    ["Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather"]
)
# Operators that do not change what kind of scores the numbers are: a mean of probabilities is one.
NEUTRAL = MOVING | {
    *("Cast", "Dropout", "Split", "QuantizeLinear", "DequantizeLinear"),
    *("AveragePool", "GlobalAveragePool", "ReduceMean"),
}
JOINING = frozenset(["Concat", "Mean"])


@dataclass(frozen=True)
class Quantization:
    """How an output of eight bits was quantised: `x / scale + zero_point`, rounded."""

    scale: float
    zero_point: int


def last_operator(model: ModelProto, output: str) -> str:
    """Name the operator that computes the scores, before those that do not change their kind.

    The complement 1 - p and a concatenation are looked through, too: from one score p many graphs
    make [1 - p, p]. The result is empty if no node computes the scores.
    """
    return _operator(output, _producers(model), Constants(model))


def quantization(model: ModelProto, output: str) -> Quantization | None:
    """Find out how the graph quantises an output; None if that is unknown."""
    producers, constants = _producers(model), Constants(model)
    node = producers.get(output)
    while node is not None and node.op_type in MOVING:
        node = producers.get(node.input[0])
    if node is None or node.op_type != "QuantizeLinear":
        return None
    arguments = [constants.get(name) for name in node.input[1:]]
    scale, zero_point = (*arguments, np.array(0))[:2]
    if scale is None or zero_point is None or scale.size != 1:
        return None
    return Quantization(float(scale.item()), int(zero_point.item()))


def _producers(model: ModelProto) -> Producers:
    return {name: node for node in model.graph.node for name in node.output}


def _operator(name: str, producers: Producers, constants: Constants) -> str:
    node = producers.get(name)
    if node is None:
        return ""
    if node.op_type in NEUTRAL:
        return _operator(node.input[0], producers, constants)
    if node.op_type == "Sub" and _is_one(node.input[0], constants):
        return _operator(node.input[1], producers, constants)
    if node.op_type in JOINING:
        operators = {_operator(each, producers, constants) for each in node.input}
        return operators.pop() if len(operators) == 1 else str(node.op_type)
    return str(node.op_type)


def _is_one(name: str, constants: Constants) -> bool:
    constant = constants.get(name)
    return constant is not None and bool((constant == 1).all())
