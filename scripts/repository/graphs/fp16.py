"""Converts FP32 classifiers to FP16, for GPUs.

Weights and activations become 16 bits wide. The input and the outputs keep their types, so that
the model's configuration is the same. An average, a softmax or a sigmoid after the last layer stays
FP32.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime import SessionOptions
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from scripts.repository.errors import BuildError
from scripts.repository.graphs import samples, walk
from scripts.repository.graphs.batches import looped
from scripts.repository.graphs.compare import precision
from scripts.repository.graphs.last_nodes import NEUTRAL
from scripts.repository.graphs.prepare import Prepared
from scripts.repository.graphs.runner import LOG_NOTHING, Array, Runner, first_line, session
from scripts.repository.graphs.scores import ACTIVATIONS
from scripts.repository.graphs.weights import restore_weights, without_weights

LARGEST = float(np.finfo(np.float16).max)  # 65,504
# They stay FP32 at the end of a graph, so that fewer scores are rounded to ties.
LAST = NEUTRAL | ACTIVATIONS.keys()
ADVICE = "build it with --precision fp32"


@dataclass(frozen=True)
class Limited:
    """A constant beyond the range of FP16, which is limited to it, and its largest number."""

    name: str
    largest: float


@dataclass(frozen=True)
class Half:
    """A graph in FP16.

    Attributes:
        prepared: the graph.
        rounded: computes in FP32 what `prepared` does where numbers are rounded to FP16 after each
            node, as on a GPU. On a CPU, onnxruntime and OpenVINO run neighbouring FP16 nodes in
            FP32 without rounding between them, which hides most of the differences and every
            overflow.
        limited: the constants that FP16 cannot hold.
    """

    prepared: Prepared
    rounded: Prepared
    limited: tuple[Limited, ...]


def is_half(model: ModelProto) -> bool:
    """Tell whether most weights of a graph are FP16 already."""
    sizes = _sizes(model)
    return sizes[TensorProto.FLOAT16] > sizes[TensorProto.FLOAT]


def convert(prepared: Prepared) -> Half:
    """Convert a classifier to FP16.

    Raises:
        BuildError: the graph is quantised, its weights are not FP32, or it cannot be converted.
    """
    graph = prepared.body or prepared.model
    _check(graph)
    try:
        converted = _converted(graph, prepared.signature.output)
        half, rounded = (_like(prepared, each) for each in (converted, _rounded(converted)))
        for each in (half, rounded):
            _run(each)
    except BuildError as error:
        raise BuildError(f"the graph cannot be converted to FP16: {error}; {ADVICE}") from error
    return Half(half, rounded, tuple(_limited(graph)))


def find_overflow(model: ModelProto, image: Array) -> str:
    """Say why an image has no finite scores in FP16.

    Args:
        model: the FP32 graph.
        image: what it takes.
    """
    reason = "FP16 gives scores that are not finite for an image"
    try:
        largest = _first_beyond(model, image)
    except Exception:  # noqa: BLE001 - any failure of onnxruntime; the reason stands without it
        largest = None
    if largest:
        reason += (
            f": the tensor {largest.name} has numbers up to {largest.largest:.3g}, and the largest "
            f"of FP16 is {LARGEST:,.0f}"
        )
    return f"{reason}; {ADVICE}"


def _sizes(model: ModelProto) -> Counter[int]:
    """Count the numbers in the constants of each data type."""
    sizes: Counter[int] = Counter()
    for tensor in walk.tensors(model):
        sizes[tensor.data_type] += math.prod(tensor.dims)
    return sizes


def _check(model: ModelProto) -> None:
    if precision(model) == "INT8":
        raise BuildError(f"the graph is quantised, which cannot become FP16; {ADVICE}")
    sizes = _sizes(model)
    if sizes[TensorProto.BFLOAT16]:
        raise BuildError(f"the graph computes in bfloat16, which cannot become FP16; {ADVICE}")
    if sizes[TensorProto.FLOAT] <= sizes[TensorProto.DOUBLE]:
        raise BuildError(f"the weights of the graph are not FP32, so none become FP16; {ADVICE}")
    if node := next((node for node in model.graph.node if [*walk.subgraphs(node)]), None):
        raise BuildError(
            f"the graph has a node {node.op_type} with graphs inside, which cannot become FP16; "
            f"{ADVICE}"
        )


def _like(prepared: Prepared, graph: ModelProto) -> Prepared:
    """Serve another graph, in a loop if that of `prepared` is in one."""
    if not prepared.body:
        return replace(prepared, model=graph)
    return replace(prepared, model=looped(graph, prepared.signature), body=graph)


def _run(prepared: Prepared) -> None:
    signature = prepared.signature
    Runner(prepared.model, signature).run(samples.images(prepared.model, signature, 1))


def _converted(model: ModelProto, output: str) -> ModelProto:
    """Convert all but the nodes after the last layer, which are taken off and put back."""
    inferred = _inferred(model)
    tail = _tail(inferred.graph, output)
    outputs = list(model.graph.output)
    if tail:
        kept = inferred.graph.node[:]
        del inferred.graph.node[:], inferred.graph.output[:]
        inferred.graph.node.extend(node for node in kept if node not in tail)
        last = onnx.ValueInfoProto(name=tail[0].input[0])
        last.type.tensor_type.elem_type = TensorProto.FLOAT
        others = [each for each in outputs if each.name not in {output, last.name}]
        inferred.graph.output.extend([*others, last])
    try:
        half: ModelProto = convert_float_to_float16(
            inferred, keep_io_types=True, disable_shape_infer=True
        )
        OnnxModel.graph_topological_sort(half.graph)
    except Exception as error:  # the converter raises many types
        raise BuildError(f"onnxruntime cannot convert it: {first_line(error)}") from error
    half.graph.node.extend(tail)
    del half.graph.value_info[:], half.graph.output[:]
    half.graph.output.extend(outputs)
    return half


def _inferred(model: ModelProto) -> ModelProto:
    """Copy a graph with the types of all its tensors; it can exceed 2 GiB."""
    slim, weights = without_weights(model)
    inferred: ModelProto = onnx.shape_inference.infer_shapes(slim)
    restore_weights(inferred, weights)
    return inferred


def _tail(graph: GraphProto, output: str) -> list[NodeProto]:
    """List the nodes of `LAST` at the end, as far as only the scores depend on them."""
    producers = {name: node for node in graph.node for name in node.output}
    tail: list[NodeProto] = []
    node = producers.get(output)
    while node is not None and node.op_type in LAST and len(node.output) == 1:
        tail.insert(0, node)
        node = producers.get(node.input[0])
    while tail and not _is_separate(tail, graph, output):
        del tail[0]
    return tail


def _is_separate(tail: list[NodeProto], graph: GraphProto, output: str) -> bool:
    inner = {name for node in tail for name in node.output} - {output}
    used = {name for node in graph.node if node not in tail for name in node.input}
    used.update(value.name for value in graph.output)
    is_computed = any(tail[0].input[0] in node.output for node in graph.node)
    return is_computed and not inner & used


def _rounded(half: ModelProto) -> ModelProto:
    """Copy an FP16 graph to one that computes in FP32 and rounds what is FP16 in the other."""
    model = _inferred(half)
    small = {
        value.name
        for value in model.graph.value_info
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    for tensor in walk.tensors(model):
        if tensor.data_type == TensorProto.FLOAT16:
            numbers = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(numbers, tensor.name))
    nodes = [each for node in model.graph.node for each in _with_rounding(node, small)]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    return model


def _with_rounding(node: NodeProto, small: set[str]) -> Iterator[NodeProto]:
    """Round the results of a node that are FP16; onnxruntime keeps casts that a graph has."""
    changed = NodeProto()
    changed.CopyFrom(node)
    yield changed
    if node.op_type == "Constant":
        return
    for at, name in enumerate(node.output):
        if name in small:
            changed.output[at], rounded = f"{name}/exact", f"{name}/rounded"
            yield helper.make_node("Cast", [changed.output[at]], [rounded], to=TensorProto.FLOAT16)
            yield helper.make_node("Cast", [rounded], [name], to=TensorProto.FLOAT)


def _limited(model: ModelProto) -> Iterator[Limited]:
    for tensor in walk.tensors(model):
        if tensor.data_type == TensorProto.FLOAT:
            largest = _largest(numpy_helper.to_array(tensor))
            if largest > LARGEST:
                yield Limited(tensor.name or "of a Constant node", largest)


def _largest(numbers: Array) -> float:
    finite = np.abs(numbers[np.isfinite(numbers)])
    return float(finite.max()) if finite.size else 0.0


def _first_beyond(model: ModelProto, image: Array) -> Limited | None:
    """Find the first tensor of the FP32 graph with numbers that FP16 does not have."""
    shown = ModelProto()
    shown.CopyFrom(model)
    given = {value.name for value in shown.graph.output}
    names = [name for node in shown.graph.node for name in node.output if name]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    options = SessionOptions()
    options.log_severity_level = LOG_NOTHING
    results = session(shown, options).run(names, {shown.graph.input[0].name: image})
    for name, numbers in zip(names, results, strict=True):
        if numbers.dtype == np.float32 and (largest := _largest(numbers)) > LARGEST:
            return Limited(name, largest)
    return None
