"""Recognises graphs that were exported in training mode.

Their scores are random, or depend on the other images of a batch.
"""

from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from scripts.repository.errors import BuildError
from scripts.repository.graphs import walk

RANDOM = {
    *("RandomUniform", "RandomUniformLike", "RandomNormal", "RandomNormalLike"),
    *("Bernoulli", "Multinomial"),
}
EVAL = "call model.eval() before exporting"


def check_not_random(model: ModelProto) -> None:
    """Refuse graphs with nodes that draw random numbers, as Dropout does in training.

    Raises:
        BuildError: the graph has such nodes.
    """
    constants = _booleans(model)
    found = {
        node.op_type
        for node in walk.nodes(model)
        if node.op_type in RANDOM or _is_training_dropout(node, constants)
    }
    if found:
        raise random(found)


def random(operators: set[str] | None = None) -> BuildError:
    """Describe a graph whose scores are random."""
    causes = f" ({', '.join(sorted(operators))})" if operators else ""
    return BuildError(f"the graph gives different scores each time{causes}; {EVAL}")


def mixing(model: ModelProto) -> BuildError:
    """Describe a graph whose scores depend on the other images."""
    cause = " (training-mode BatchNormalization)" if has_training_normalization(model) else ""
    return BuildError(
        f"the scores of an image depend on the other images of its batch{cause}; {EVAL}"
    )


def has_training_normalization(model: ModelProto) -> bool:
    """Tell whether a BatchNormalization takes mean and variance from the images themselves.

    One over a reshaped input is how some exporters write InstanceNorm, which does so rightly.
    """
    reshaped = {
        name for node in walk.nodes(model) if node.op_type == "Reshape" for name in node.output
    }
    return any(
        node.op_type == "BatchNormalization"
        and node.input[0] not in reshaped
        and _is_set(node, "training_mode")
        for node in walk.nodes(model)
    )


def _is_training_dropout(node: NodeProto, constants: dict[str, bool]) -> bool:
    """Tell whether a Dropout has the constant true as its input `training_mode`."""
    return node.op_type == "Dropout" and any(constants.get(name) for name in node.input[2:3])


def _is_set(node: NodeProto, name: str) -> bool:
    attribute = walk.attribute(node, name)
    return attribute is not None and bool(attribute.i)


def _booleans(model: ModelProto) -> dict[str, bool]:
    """Read the constant scalars of type BOOL by name."""
    tensors = {tensor.name: tensor for tensor in walk.tensors(model)}
    for node in walk.nodes(model):
        value = walk.attribute(node, "value")
        if node.op_type == "Constant" and value is not None:
            tensors[node.output[0]] = value.t
    return {
        name: bool(numpy_helper.to_array(tensor).all())
        for name, tensor in tensors.items()
        if tensor.data_type == TensorProto.BOOL
    }
