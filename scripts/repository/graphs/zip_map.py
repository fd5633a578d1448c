"""Removes ZipMap, which Triton cannot serve."""

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

ZIP_MAP = "ZipMap"


def without_zip_maps(model: ModelProto) -> ModelProto:
    """Copy a graph without the ZipMap nodes of scikit-learn exports; their inputs become outputs.

    A ZipMap turns a tensor of scores into a list of dictionaries. A graph without one is returned
    as it is.
    """
    zip_maps = {node.output[0]: node for node in model.graph.node if node.op_type == ZIP_MAP}
    if not zip_maps:
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    nodes = [node for node in graph.node if node.op_type != ZIP_MAP]
    outputs = {value.name: value for value in graph.output if value.name not in zip_maps}
    for value in model.graph.output:
        if value.name in zip_maps:
            scores = _scores(zip_maps[value.name])
            outputs.setdefault(scores.name, scores)
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.output.extend(outputs.values())
    return copy


def _scores(node: NodeProto) -> ValueInfoProto:
    """Describe a ZipMap's input, FLOAT [N, classes]."""
    labels = next(each for each in node.attribute if each.name.startswith("classlabels_"))
    classes = len(labels.ints) or len(labels.strings)
    return helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, ["N", classes])
