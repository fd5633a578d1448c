"""Walks through a graph, its subgraphs and functions."""

from collections.abc import Iterable, Iterator

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto


def nodes(model: ModelProto) -> Iterator[NodeProto]:
    """List all nodes: of the graph, of the subgraphs of its nodes, and of the model's functions."""
    yield from nested(model.graph.node)
    for function in model.functions:
        yield from nested(function.node)


def nested(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """List nodes, and those of their subgraphs."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from nested(graph.node)


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """List all constant tensors: initializers, and attributes of nodes, in subgraphs, too."""
    yield from _initializers(model.graph)
    for node in nodes(model):
        for attribute in node.attribute:
            yield from _of_attribute(attribute)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """List the graphs that a node of control flow contains."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def attribute(node: NodeProto, name: str) -> AttributeProto | None:
    """Find an attribute of a node."""
    return next((each for each in node.attribute if each.name == name), None)


def _initializers(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def _of_attribute(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("sparse_tensor"):
        yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
    graphs = [attribute.g] if attribute.HasField("g") else []
    for graph in (*graphs, *attribute.graphs):
        yield from _initializers(graph)
