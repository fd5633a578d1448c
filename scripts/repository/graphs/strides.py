"""Moves the strides of 1 x 1 convolutions towards the input of a graph.

A 1 x 1 convolution with a stride ignores most pixels of its input. A `MaxPool` of one pixel with
that stride drops them before, from bytes as well. If nothing else needs them, the layers in front
do not have to compute them either: a convolution takes over the stride. Scores do not change.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

import onnx
from onnx import ModelProto, NodeProto, helper

from scripts.repository.graphs import walk
from scripts.repository.graphs.weights import without_weights

Strides = tuple[int, ...]

ALL_PIXELS: Strides = (1, 1)
# Operators that compute each pixel from the same pixel of their inputs.
PIXELWISE = frozenset(["Relu", "Add", "BatchNormalization"])
PER_CHANNEL = frozenset(["BatchNormalization"])  # their other inputs have a number per channel
EXPLICIT_PADS = frozenset([b"NOTSET", b"VALID"])
IMAGE_DIMS = 4  # batch, channels, height, width


def with_early_strides(model: ModelProto) -> ModelProto:
    """Copy a graph in which no 1 x 1 convolution of images has a stride.

    Without such a stride, the graph itself is returned.

    onnxruntime computes the pixels that nothing needs. OpenVINO moves strides as well, but in an
    INT8 graph to a place between the conversion of bytes and their scaling, and then computes the
    convolution in FP32.
    """
    kernels = _kernels(model)
    convolutions = (node for node in model.graph.node if node.op_type == "Conv")
    pixelwise = (node for node in convolutions if kernels.get(node.input[1]) == (1, 1))
    if not any(stride > 1 for node in pixelwise for stride in _ints(node, "strides")):
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    nodes = _ordered(_Strides(copy).moved())
    del copy.graph.value_info[:], copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


class _Strides:
    """Changes the nodes of a graph, from the last to the first.

    `_needs` has the nodes that take a tensor, by the strides at which they need its pixels. It is
    complete for the outputs of the node whose turn it is.
    """

    def __init__(self, model: ModelProto) -> None:
        self._graph = model.graph
        self._images = frozenset(_images(model))
        self._kernels = _kernels(model)
        self._needs: dict[str, dict[Strides, list[NodeProto]]] = defaultdict(dict)

    def moved(self) -> list[NodeProto]:
        """Change the nodes, and list them with the poolings that they need."""
        for output in self._graph.output:
            self._needs[output.name] = {ALL_PIXELS: []}
        nodes: list[NodeProto] = []
        for node in reversed(self._graph.node):
            strides = self._strides_of_output(node)
            if strides == ALL_PIXELS:
                nodes += self._poolings(node.output)
            nodes.append(node)
            self._change(node, strides)
        nodes += self._poolings(value.name for value in self._graph.input)
        return nodes[::-1]

    def _strides_of_output(self, node: NodeProto) -> Strides:
        """The strides at which all others need the output, if the node can compute just that."""
        needs = list(self._needs[node.output[0]])
        if self._is_convolution(node):
            padding = walk.attribute(node, "auto_pad")
            is_able = padding is None or padding.s in EXPLICIT_PADS
        else:
            pixels = node.input[:1] if node.op_type in PER_CHANNEL else node.input
            is_able = node.op_type in PIXELWISE and self._images.issuperset(pixels)
        return needs[0] if is_able and len(needs) == 1 else ALL_PIXELS

    def _change(self, node: NodeProto, strides: Strides) -> None:
        """Let a node compute its output at these strides, and record what it needs for that."""
        if self._is_convolution(node):
            own = _ints(node, "strides") or ALL_PIXELS
            strides = tuple(a * b for a, b in zip(own, strides, strict=True))
            is_pixelwise = self._kernels[node.input[1]] == (1, 1) and not any(_ints(node, "pads"))
            kept, strides = (ALL_PIXELS, strides) if is_pixelwise else (strides, ALL_PIXELS)
            _set_strides(node, kept)
        for taker in walk.nested([node]):
            for name in taker.input:
                needed = strides if name in self._images else ALL_PIXELS
                self._needs[name].setdefault(needed, []).append(taker)

    def _poolings(self, names: Iterable[str]) -> Iterator[NodeProto]:
        """Drop pixels of tensors for the nodes that do not need them."""
        for name in names:
            for strides, takers in self._needs[name].items():
                if strides != ALL_PIXELS:
                    yield _pooling(name, strides, takers)

    def _is_convolution(self, node: NodeProto) -> bool:
        """Whether a node convolves images with constant weights."""
        return (
            node.op_type == "Conv"
            and node.input[0] in self._images
            and node.input[1] in self._kernels
        )


def _ordered(nodes: list[NodeProto]) -> list[NodeProto]:
    """Put poolings after other nodes that take the same tensor.

    The quantiser leaves a pooling in FP32 if no node before it needs its input in INT8.
    """
    poolings: dict[str, int] = defaultdict(int)  # in front of a tensor
    for node in nodes:
        inputs = (name for each in walk.nested([node]) for name in each.input)
        count = max((poolings[name] for name in inputs), default=0)
        poolings.update(dict.fromkeys(node.output, count + (node.op_type == "MaxPool")))
    return sorted(nodes, key=lambda node: poolings[node.output[0]])


def _kernels(model: ModelProto) -> dict[str, Strides]:
    """Read the size of each weight's kernel, if it is that of a convolution."""
    return {each.name: tuple(each.dims[2:]) for each in model.graph.initializer}


def _images(model: ModelProto) -> Iterator[str]:
    slim, _ = without_weights(model)
    graph = onnx.shape_inference.infer_shapes(slim).graph
    weights = {each.name for each in graph.initializer}  # older files list them as inputs
    for value in (*graph.input, *graph.value_info, *graph.output):
        if len(value.type.tensor_type.shape.dim) == IMAGE_DIMS and value.name not in weights:
            yield value.name


def _ints(node: NodeProto, name: str) -> Strides:
    attribute = walk.attribute(node, name)
    return tuple(attribute.ints) if attribute else ()


def _set_strides(node: NodeProto, strides: Strides) -> None:
    if attribute := walk.attribute(node, "strides"):
        node.attribute.remove(attribute)
    node.attribute.append(helper.make_attribute("strides", strides))


def _pooling(name: str, strides: Strides, takers: list[NodeProto]) -> NodeProto:
    """Let nodes take a tensor through a pooling with these strides."""
    pooled = f"{name}/strides_{'x'.join(map(str, strides))}"
    for taker in takers:
        for index, each in enumerate(taker.input):
            if each == name:
                taker.input[index] = pooled
    return helper.make_node(
        "MaxPool", [name], [pooled], pooled, kernel_shape=[1, 1], strides=strides
    )
