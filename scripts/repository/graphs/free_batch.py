"""Makes the fixed batch size of a graph variable."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from scripts.repository.graphs import walk
from scripts.repository.graphs.weights import without_weights

Shape = npt.NDArray[np.int64]


def free_batch(model: ModelProto, batch: int | None) -> None:
    """Make the first dimension of the input symbolic, in place, and remove the outputs' shapes.

    `batch` is the batch size for which the graph was exported, or None if it is variable already.
    The caller must verify the result, because a graph can fix its batch size in other ways, too.
    """
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    # Inferred shapes contain the old batch size; onnxruntime infers them again.
    del model.graph.value_info[:]
    if batch:
        _free_reshapes(model, batch)
        _free_concats(model)


def _free_reshapes(model: ModelProto, batch: int) -> None:
    """Make the constant shapes of Reshape nodes independent of the batch size."""
    shapes = _constant_shapes(model)
    for index, node in enumerate(model.graph.node):
        if node.op_type != "Reshape" or len(node.input) == 1 or node.input[1] not in shapes:
            continue
        # A copy, because another node may use the same constant for something else.
        shape = _batched_shape(shapes[node.input[1]], batch)
        node.input[1] = _add_constant(model, f"{node.input[1]}_batched_{index}", shape)
        _drop_allowzero(node)
    _drop_unused_initializers(model)


def _constant_shapes(model: ModelProto) -> dict[str, Shape]:
    shapes = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT64
    }
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            shapes[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Constant" and node.attribute[0].name == "value_ints":
            shapes[node.output[0]] = np.array(node.attribute[0].ints, np.int64)
    return shapes


def _batched_shape(shape: Shape, batch: int) -> Shape:
    batched = shape.copy()
    if not shape.size or shape[0] < 1:
        return batched
    if -1 not in shape:
        # Also correct if heads or groups are folded into the batch dimension.
        batched[0] = -1
    elif shape[0] == batch:
        batched[0] = 0  # keeps the input's size
    return batched


def _drop_allowzero(node: NodeProto) -> None:
    # Some exporters always set `allowzero`; with it, 0 is an empty dimension.
    kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
    del node.attribute[:]
    node.attribute.extend(kept)


def _drop_unused_initializers(model: ModelProto) -> None:
    used = {name for node in walk.nodes(model) for name in node.input}
    used.update(output.name for output in model.graph.output)
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _free_concats(model: ModelProto) -> None:
    """Repeat constants that are concatenated to each image, such as the class token of a ViT."""
    constants = _constants(model)
    ranks = _ranks(model)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        variable = [name for name in node.input if name not in constants]
        if node.op_type == "Concat" and variable and _axis(node) != 0:
            for position, name in enumerate(node.input):
                if name in constants and ranks.get(name, 0) > 1:
                    expanded = f"{node.output[0]}_input_{position}_batched"
                    nodes += _repeat(model, name, ranks[name], variable[0], expanded)
                    node.input[position] = expanded
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _constants(model: ModelProto) -> set[str]:
    """Name the tensors that do not depend on the input."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if constants.issuperset(filter(None, node.input)):
            constants.update(node.output)
    return constants


def _ranks(model: ModelProto) -> dict[str, int]:
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    slim, _ = without_weights(model)
    for value in onnx.shape_inference.infer_shapes(slim).graph.value_info:
        ranks[value.name] = len(value.type.tensor_type.shape.dim)
    return ranks


def _axis(node: NodeProto) -> int:
    return next(int(attribute.i) for attribute in node.attribute if attribute.name == "axis")


def _repeat(
    model: ModelProto, constant: str, rank: int, images: str, output: str
) -> Iterator[NodeProto]:
    """Expand the first of `constant` to [N, ...], with the batch size N of `images`."""
    first = _add_constant(model, f"{output}_first", np.array([0]))
    ones = _add_constant(model, f"{output}_ones", np.ones(rank - 1, np.int64))
    one, shape, count, target = (f"{output}_{part}" for part in ("one", "shape", "count", "target"))
    yield helper.make_node("Gather", [constant, first], [one])
    yield helper.make_node("Shape", [images], [shape])
    yield helper.make_node("Gather", [shape, first], [count])
    yield helper.make_node("Concat", [count, ones], [target], axis=0)
    yield helper.make_node("Expand", [one, target], [output])


def _add_constant(model: ModelProto, name: str, value: Shape) -> str:
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name
