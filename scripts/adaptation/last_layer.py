"""Finds the last layer of a classifier's graph, and replaces it with another."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from scripts.adaptation.errors import AdaptationError
from scripts.repository.graphs import walk
from scripts.repository.graphs.constants import Constants
from scripts.repository.graphs.last_nodes import JOINING, NEUTRAL
from scripts.repository.graphs.opset import OPSETS, opset, with_opset
from scripts.repository.graphs.scores import ACTIVATIONS
from scripts.repository.graphs.values import inputs

Weights = npt.NDArray[np.float32]

# What makes rows of features, [N, features], of the input of a layer. The input of a Gemm is one.
FLATTENING: dict[str, tuple[str, ...]] = {
    "Gemm": (),
    "MatMul": ("Flatten",),
    "Conv": ("GlobalAveragePool", "Flatten"),
}
# Operators without trained weights, which may follow the last layer.
FOLLOWING = frozenset(
    [
        *(*NEUTRAL, *JOINING, *ACTIVATIONS),
        *("Add", "Sub", "Mul", "Div", "Neg", "Relu", "Clip", "LeakyRelu", "Tanh"),
    ]
)
LOGITS = "logits"
ADVICE = (
    "export the classifier in FP32 with a fully connected layer, or a 1x1 convolution, at the end"
)
# Before it, initializers have to be inputs, too.
FIRST_IR_WITH_INITIALIZERS = 4


@dataclass(frozen=True)
class LastLayer:
    """The last layer with trained weights.

    Attributes:
        operator: one of `FLATTENING`.
        features: name of the tensor that it takes.
        width: number of features that it takes; None if its weights are computed.
        data_type: of the features, as ONNX numbers it.
    """

    operator: str
    features: str
    width: int | None
    data_type: int


def find(model: ModelProto, scores: str) -> LastLayer:
    """Find the last layer that the tensor `scores` is computed with.

    Raises:
        AdaptationError: there is none, or the scores depend on the features in other ways, too.
    """
    varying = _varying(model)
    later: list[NodeProto] = []
    for node in reversed(_needed(model, scores)):
        if not varying.intersection(node.output):
            continue
        if _is_layer(node, varying):
            _check_only_way(node, later, varying)
            return _last_layer(model, node)
        if node.op_type not in FOLLOWING:
            raise AdaptationError(
                f"cannot find the last layer: the scores are computed with {node.op_type}; {ADVICE}"
            )
        later.append(node)
    raise AdaptationError(f"cannot find the last layer: no layer has weights; {ADVICE}")


def backbone(model: ModelProto, layer: LastLayer) -> ModelProto:
    """Copy the part of a graph before its last layer; the output is FP32 [N, features].

    Nodes and weights that the features do not need are left out, and so is the file's metadata,
    which describes the whole classifier. Everything else is as it was.
    """
    graph = _part(model, layer.features)
    current = layer.features
    for operator in FLATTENING[layer.operator]:
        current = _append(graph, operator, [current])
    if layer.data_type != TensorProto.FLOAT:
        current = _append(graph, "Cast", [current], to=TensorProto.FLOAT)
    graph.graph.output.append(_rows(graph, current, layer.width))
    return graph


def with_layer(features: ModelProto, weights: Weights, bias: Weights) -> ModelProto:
    """Copy a graph of features with a fully connected layer at its end; the output is its logits.

    `weights` are FP32 [classes, features], and `bias` FP32 [classes].
    """
    model = _copy(features)
    graph = model.graph
    logits = _free_name(model, LOGITS)
    names = [_free_name(model, f"{logits}_{kind}") for kind in ("weight", "bias")]
    for name, array in zip(names, (weights, bias), strict=True):
        graph.initializer.append(numpy_helper.from_array(array, name))
        if model.ir_version < FIRST_IR_WITH_INITIALIZERS:
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape))
    _append(model, "Gemm", [graph.output[0].name, *names], logits, transB=1)
    del graph.output[:]
    graph.output.append(_rows(model, logits, len(bias)))
    return model


def plain(model: ModelProto) -> ModelProto:
    """Return a graph without functions, in an opset whose Gemm adds a bias to each row."""
    if opset(model) >= OPSETS[0] and not model.functions:
        return model
    return with_opset(model, OPSETS[0], max(OPSETS[0], opset(model)))


def _varying(model: ModelProto) -> set[str]:
    """List the tensors whose values depend on the image; a shape does not."""
    varying = {value.name for value in inputs(model)}
    for node in model.graph.node:
        if node.op_type != "Shape" and varying.intersection(_inputs(node)):
            varying.update(node.output)
    return varying


def _needed(model: ModelProto, *outputs: str) -> list[NodeProto]:
    """List the nodes that tensors are computed with, in their order."""
    wanted, found = set(outputs), []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            wanted.update(_inputs(node))
            found.append(node)
    return found[::-1]


def _inputs(node: NodeProto) -> set[str]:
    """List what a node takes, in its subgraphs, too."""
    return {name for each in walk.nested([node]) for name in each.input if name}


def _is_layer(node: NodeProto, varying: set[str]) -> bool:
    if node.op_type not in FLATTENING:
        return False
    return node.input[0] in varying and not varying.intersection(node.input[1:])


def _check_only_way(layer: NodeProto, later: Iterable[NodeProto], varying: set[str]) -> None:
    """Check that what follows a layer takes nothing else that depends on the image."""
    known = set(layer.output).union(*(node.output for node in later))
    for node in later:
        if varying.intersection(_inputs(node)) - known:
            raise AdaptationError(
                f"cannot find the last layer: {node.op_type} joins its scores with others; {ADVICE}"
            )


def _last_layer(model: ModelProto, node: NodeProto) -> LastLayer:
    weights = Constants(model).get(node.input[1])
    if node.op_type == "Conv" and not _is_pointwise(node, weights):
        raise AdaptationError(f"the last layer is a convolution that is not 1x1; {ADVICE}")
    if node.op_type == "Gemm" and _number(node, "transA"):
        raise AdaptationError(f"the last layer is a Gemm with transA; {ADVICE}")
    if weights is None:  # of 8 bits, with a scale
        return LastLayer(node.op_type, node.input[0], None, TensorProto.FLOAT)
    takes_columns = node.op_type == "Conv" or bool(_number(node, "transB"))
    width = int(weights.shape[1 if takes_columns else 0])
    data_type = helper.np_dtype_to_tensor_dtype(weights.dtype)
    return LastLayer(node.op_type, node.input[0], width, data_type)


def _is_pointwise(node: NodeProto, weights: npt.NDArray[np.generic] | None) -> bool:
    """Tell whether a convolution is a fully connected layer at each position."""
    kernel = walk.attribute(node, "kernel_shape")
    sides = tuple(kernel.ints) if kernel else () if weights is None else weights.shape[2:]
    return set(sides) == {1} and _number(node, "group", 1) == 1


def _number(node: NodeProto, name: str, default: int = 0) -> int:
    attribute = walk.attribute(node, name)
    return int(attribute.i) if attribute else default


def _part(model: ModelProto, output: str) -> ModelProto:
    """Copy a graph without outputs and without what `output` does not need."""
    part = _copy(model)
    graph = part.graph
    nodes = _needed(part, output)
    used = {output}.union(*map(_inputs, nodes))
    images = {value.name for value in inputs(part)}
    kept: dict[str, list[Any]] = {
        "node": nodes,
        "initializer": [each for each in graph.initializer if each.name in used],
        "sparse_initializer": [
            each for each in graph.sparse_initializer if each.values.name in used
        ],
        "input": [each for each in graph.input if each.name in used | images],
        "value_info": [each for each in graph.value_info if each.name in used - {output}],
        "quantization_annotation": [
            each for each in graph.quantization_annotation if each.tensor_name in used
        ],
    }
    copies = onnx.GraphProto()
    for field, values in kept.items():
        getattr(copies, field).extend(values)
        graph.ClearField(field)
    graph.ClearField("output")
    graph.MergeFrom(copies)
    part.ClearField("metadata_props")
    return part


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def _append(
    model: ModelProto, operator: str, takes: list[str], name: str = "", **attributes: int
) -> str:
    """Append a node, and return the name of its output."""
    name = name or _free_name(model, f"features_{operator.lower()}")
    node = helper.make_node(operator, takes, [name], name)
    node.attribute.extend(helper.make_attribute(key, each) for key, each in attributes.items())
    model.graph.node.append(node)
    return name


def _free_name(model: ModelProto, name: str) -> str:
    """Return a name that no tensor of the graph has yet."""
    graph = model.graph
    used = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    used.update(*((*each.input, *each.output) for each in walk.nodes(model)))
    while name in used:
        name += "_"
    return name


def _rows(model: ModelProto, name: str, columns: int | None) -> ValueInfoProto:
    """Describe rows, FP32 [N, columns], of as many images as the graph takes."""
    value = helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, columns])
    image = inputs(model)[0].type.tensor_type
    value.type.tensor_type.shape.dim[0].CopyFrom(image.shape.dim[0])
    return value
