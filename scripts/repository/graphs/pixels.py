"""Adds the normalisation to a classifier's graph, so that its input is uint8 pixels."""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from scripts.repository.errors import BuildError
from scripts.repository.graphs.prepare import Prepared
from scripts.repository.steps.preprocess.recipe import Recipe

INPUT = "PIXELS"


def with_pixels(prepared: Prepared, recipe: Recipe) -> ModelProto:
    """Copy a graph with the input PIXELS, UINT8 [N, H, W, 3], instead of FP32 [N, 3, H, W].

    Raises:
        BuildError: a tensor of the graph is already called PIXELS.
    """
    model = ModelProto()
    model.CopyFrom(prepared.model)
    graph = model.graph
    nodes = [*_normalization(prepared.signature.input), *graph.node]
    if any(INPUT in {*node.input, *node.output} for node in graph.node):
        raise BuildError(f"a tensor of the graph is called {INPUT}; export it with another name")
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(_factors(recipe))
    del graph.input[:]
    shape: list[str | int | None] = ["N", *recipe.crop, recipe.channels]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape))
    return model


def output(prepared: Prepared) -> str:
    """Name the output of `with_pixels`: the graph's own, unless nodes have to follow it."""
    return prepared.signature.output


def _normalization(output: str) -> list[NodeProto]:
    """Compute `(pixel / 255 - mean) / std`, channels first; transposing uint8 is the cheapest."""
    names = [INPUT, *(f"{INPUT}/{step}" for step in ("transposed", "float", "scaled")), output]
    return [
        helper.make_node("Transpose", [names[0]], [names[1]], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", [names[1]], [names[2]], to=TensorProto.FLOAT),
        helper.make_node("Mul", [names[2], f"{INPUT}/scale"], [names[3]]),
        helper.make_node("Add", [names[3], f"{INPUT}/offset"], [names[4]]),
    ]


def _factors(recipe: Recipe) -> list[TensorProto]:
    std = np.array(recipe.std)
    factors = {"scale": 1 / (255 * std), "offset": -np.array(recipe.mean) / std}
    return [
        numpy_helper.from_array(values.astype(np.float32).reshape(3, 1, 1), f"{INPUT}/{name}")
        for name, values in factors.items()
    ]
