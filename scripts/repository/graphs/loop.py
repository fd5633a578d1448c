"""Runs a graph of a fixed batch size on any number of images, in a loop inside the graph.

A Scan node contains the whole graph. Its weights are inside, too: onnxruntime does not prepare
weights from outside for its fast kernels, which makes convolutions up to three times as slow. Only
those of a graph of more than 2 GiB are outside.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from onnx.numpy_helper import from_array

from scripts.repository import onnx_file
from scripts.repository.graphs import walk
from scripts.repository.graphs.opset import OPSETS, opset, with_opset
from scripts.repository.graphs.runner import Shape

PREFIX = "loop/"
# The first opsets with Scan over the first dimension, and with the nodes of `FILL`.
SCAN_OPSET, FILL_OPSET = 9, 13
# Repeats the last image until there are whole batches.
FILL = onnx.parser.parse_graph("""
    fill (float[N] image, int64 batch) => (float[M] filled, int64[1] count) {
        zero = Constant<value = int64 {0}>()
        first = Constant<value = int64[1] {0}>()
        one = Constant<value = int64 {1}>()
        shape = Shape(image)
        count = Gather(shape, first)
        images = Gather(shape, zero)
        last = Sub(images, one)
        started = Add(last, batch)
        batches = Div(started, batch)
        total = Mul(batches, batch)
        positions = Range(zero, total, one)
        indices = Min(positions, last)
        filled = Gather(image, indices)
    }
""")


def over_images(model: ModelProto, image: ValueInfoProto, outputs: dict[str, Shape]) -> ModelProto:
    """Copy a graph into a loop; its input and outputs keep their names.

    `image` is its input with all dimensions fixed, and `outputs` has the shapes of the outputs that
    are kept; the first dimension of each is the batch size. A last batch that is too small is
    filled with its last image.

    Raises:
        BuildError: the graph cannot be converted to an opset with loops.
    """
    shape = dims(image)
    is_filled = shape[0] > 1
    looped = with_opset(
        model, FILL_OPSET if is_filled else SCAN_OPSET, max(opset(model), OPSETS[1])
    )
    types = {value.name: value.type.tensor_type.elem_type for value in looped.graph.output}
    graph = GraphProto(name=looped.graph.name)
    graph.input.append(_value(image.name, image.type.tensor_type.elem_type, shape))
    graph.output.extend(_value(name, types[name], outputs[name]) for name in outputs)
    graph.node.extend(_fill(image.name) if is_filled else ())
    body = _body(looped.graph, image, outputs)
    if onnx_file.is_large(model):  # protobuf limits a node to 2 GiB, too
        graph.initializer.extend(body.initializer)
        del body.initializer[:]
    graph.node.extend(_scan(body, f"{PREFIX}filled" if is_filled else image.name, outputs))
    graph.node.extend(_join(outputs, is_filled=is_filled))
    graph.initializer.extend(_numbers(shape, outputs))
    looped.graph.CopyFrom(graph)
    return looped


def dims(value: ValueInfoProto) -> tuple[int, ...]:
    """Read the dimensions of a tensor; those that are not fixed are 0."""
    return tuple(int(dim.dim_value) for dim in value.type.tensor_type.shape.dim)


def rename(graph: GraphProto, names: dict[str, str]) -> None:
    """Rename tensors in a graph and its subgraphs, in place."""
    for node in walk.nested(graph.node):
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)


def _body(original: GraphProto, image: ValueInfoProto, outputs: dict[str, Shape]) -> GraphProto:
    body = GraphProto()
    body.CopyFrom(original)
    kept = [value for value in body.output if value.name in outputs]
    del body.input[:], body.output[:]
    body.input.append(image)
    body.output.extend(sorted(kept, key=lambda value: list(outputs).index(value.name)))
    # A subgraph must not use the names of the tensors around it.
    rename(body, {name: f"{PREFIX}{name}" for name in (image.name, *outputs)})
    return body


def _fill(image: str) -> list[NodeProto]:
    fill = GraphProto()
    fill.CopyFrom(FILL)
    used = {name for node in fill.node for name in (*node.input, *node.output)}
    rename(fill, {name: f"{PREFIX}{name}" for name in used} | {"image": image})
    return list(fill.node)


def _scan(body: GraphProto, images: str, outputs: dict[str, Shape]) -> Iterator[NodeProto]:
    batches = f"{PREFIX}in_batches"
    yield helper.make_node("Reshape", [images, f"{PREFIX}batch_shape"], [batches])
    stacked = [f"{PREFIX}stacked/{name}" for name in outputs]
    yield helper.make_node("Scan", [batches], stacked, body=body, num_scan_inputs=1)


def _join(outputs: dict[str, Shape], *, is_filled: bool) -> Iterator[NodeProto]:
    """Join the outputs of all batches, and remove those of the images that were added."""
    for name in outputs:
        joined = f"{PREFIX}joined/{name}" if is_filled else name
        shape = f"{PREFIX}shape/{name}"
        yield helper.make_node("Reshape", [f"{PREFIX}stacked/{name}", shape], [joined])
        if is_filled:
            ends = [f"{PREFIX}first", f"{PREFIX}count"]
            yield helper.make_node("Slice", [joined, *ends, ends[0]], [name])


def _numbers(image: tuple[int, ...], outputs: dict[str, Shape]) -> Iterator[TensorProto]:
    numbers: dict[str, object] = {"batch_shape": [-1, *image]}
    if image[0] > 1:
        numbers["batch"] = image[0]
    numbers |= {f"shape/{name}": [-1, *shape[1:]] for name, shape in outputs.items()}
    for name, value in numbers.items():
        yield from_array(np.array(value, np.int64), PREFIX + name)


def _value(name: str, data_type: int, shape: Shape) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, data_type, ["N", *shape[1:]])
