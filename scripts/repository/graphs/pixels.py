"""Adds nodes to a classifier's graph, so that it takes UINT8 pixels and gives a score a class."""

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from scripts.repository.errors import BuildError
from scripts.repository.graphs import tensors
from scripts.repository.graphs.prepare import Prepared
from scripts.repository.graphs.signature import Signature
from scripts.repository.steps.preprocess.recipe import Recipe

INPUT = "PIXELS"
OUTPUT = "SCORES"
TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
ONNX_TYPES = {"FP32": TensorProto.FLOAT, "FP16": TensorProto.FLOAT16, "FP64": TensorProto.DOUBLE}


def with_pixels(prepared: Prepared, recipe: Recipe, *, convert_first: bool = False) -> ModelProto:
    """Copy a graph with the input PIXELS and one output of scores.

    PIXELS, UINT8 [N, H, W, C], are turned into the graph's own input as `recipe` says. The output
    is FP32 [N, classes]; `output` gives its name. On a CPU, moving bytes before they are converted
    takes less time; with `convert_first`, only a conversion takes UINT8, as TensorRT needs it.

    Raises:
        BuildError: the graph takes UINT8 and the recipe normalises, or a tensor of the graph has
            the name of one that is added.
    """
    head = _head(recipe, prepared.signature, convert_first=convert_first)
    tail = _tail(prepared)
    _check_names(prepared.model, [INPUT, OUTPUT] if tail.nodes else [INPUT])
    model = ModelProto()
    model.CopyFrom(prepared.model)
    graph = model.graph
    nodes = [*head.nodes, *graph.node, *tail.nodes]
    scores = [value for value in graph.output if value.name == prepared.signature.output]
    if tail.nodes:
        shape: list[str | int | None] = ["N", prepared.classes]
        scores = [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.output.extend(scores)
    graph.initializer.extend([*head.constants, *tail.constants])
    shape = ["N", *recipe.crop, recipe.channels]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape))
    return model


def output(prepared: Prepared) -> str:
    """Name the output of `with_pixels`: the graph's own, unless nodes have to follow it."""
    return OUTPUT if _tail(prepared).nodes else prepared.signature.output


class _Chain:
    """Nodes that each take what the previous one gives, from the tensor `first` on.

    The tensors between them and the constants have names that begin with `prefix`.
    """

    def __init__(self, first: str, prefix: str) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.last, self._prefix = first, prefix

    def add(self, operator: str, result: str, **attributes: Any) -> None:  # noqa: ANN401
        self._append(operator, [self.last], result, attributes)

    def add_with(
        self,
        operator: str,
        constants: dict[str, npt.NDArray[Any]],
        result: str,
        **attributes: Any,  # noqa: ANN401
    ) -> None:
        """Add a node that takes constants, too."""
        names = [f"{self._prefix}/{name}" for name in constants]
        self.constants += map(numpy_helper.from_array, constants.values(), names)
        self._append(operator, [self.last, *names], result, attributes)

    def end(self, name: str) -> None:
        """Give the last result a name."""
        if not self.nodes:
            self.add("Identity", "same")
        self.nodes[-1].output[0] = self.last = name

    def _append(
        self, operator: str, inputs: list[str], result: str, attributes: dict[str, Any]
    ) -> None:
        self.last = f"{self._prefix}/{result}"
        self.nodes.append(helper.make_node(operator, inputs, [self.last], **attributes))


def _head(recipe: Recipe, signature: Signature, *, convert_first: bool) -> _Chain:
    """Compute the graph's input from pixels."""
    if signature.input_type == "UINT8" and tensors.is_normalized(recipe):
        raise BuildError(
            f"the graph's input {signature.input} takes UINT8 pixels, which cannot be normalised; "
            "use --normalization none"
        )
    chain = _Chain(INPUT, INPUT)
    steps = [_arrange]
    if signature.input_type != "UINT8":
        steps = [_convert, _arrange] if convert_first else [_arrange, _convert]
        steps.append(_normalize)
    for step in steps:
        step(chain, recipe, signature)
    chain.end(signature.input)
    return chain


def _arrange(chain: _Chain, recipe: Recipe, signature: Signature) -> None:
    is_bgr = recipe.colour == "bgr"
    if is_bgr or signature.layout == "NCHW":
        chain.add("Transpose", "transposed", perm=TO_NCHW)
    if is_bgr:
        # Whole planes are copied; exchanging the values of each pixel takes ten times as long.
        chain.add_with("Gather", {"order": np.array([2, 1, 0])}, "bgr", axis=1)
    if is_bgr and signature.layout == "NHWC":
        chain.add("Transpose", "bgr_transposed", perm=TO_NHWC)


def _convert(chain: _Chain, recipe: Recipe, signature: Signature) -> None:
    """Convert pixels to the type in which they are normalised."""
    is_normalized = tensors.is_normalized(recipe)
    data_type = TensorProto.FLOAT if is_normalized else ONNX_TYPES[signature.input_type]
    chain.add("Cast", "float", to=data_type)


def _normalize(chain: _Chain, recipe: Recipe, signature: Signature) -> None:
    """Compute `pixel * scale + offset` in FP32."""
    if not tensors.is_normalized(recipe):
        return
    data_type = ONNX_TYPES[signature.input_type]
    scale, offset = (_broadcast(values, recipe, signature) for values in tensors.factors(recipe))
    if (scale != 1).any():
        chain.add_with("Mul", {"scale": scale}, "scaled")
    if offset.any():
        chain.add_with("Add", {"offset": offset}, "shifted")
    if data_type != TensorProto.FLOAT:
        chain.add("Cast", "converted", to=data_type)


def _broadcast(values: tensors.Factors, recipe: Recipe, signature: Signature) -> tensors.Factors:
    """Shape a value for each channel so that onnxruntime broadcasts it to an image."""
    if signature.layout == "NCHW":
        return values.reshape(-1, 1, 1)
    # A row of the image at once: for [C], the loop over three values takes 35 times as long.
    return np.tile(values, (recipe.crop[1], 1))


def _tail(prepared: Prepared) -> _Chain:
    """Compute FP32 [N, classes] from the graph's own output; no nodes if it is that already."""
    signature, scores = prepared.signature, prepared.scores
    chain = _Chain(signature.output, OUTPUT)
    if scores.quantization:
        numbers = scores.quantization
        zero_point = np.array(numbers.zero_point, signature.output_type.lower())
        quantized = {"scale": np.array(numbers.scale, np.float32), "zero_point": zero_point}
        chain.add_with("DequantizeLinear", quantized, "float")
    elif signature.output_type != "FP32":
        chain.add("Cast", "float", to=TensorProto.FLOAT)
    if len(signature.output_dims) != 1:
        chain.add("Flatten", "flat", axis=1)
    if scores.needs_sigmoid:
        chain.add("Sigmoid", "probability")
    if scores.is_single:
        _add_complement(chain)
    if chain.nodes:
        chain.end(OUTPUT)
    return chain


def _add_complement(chain: _Chain) -> None:
    """Turn one probability p into [1 - p, p], which is p * [-1, 1] + [1, 0]."""
    sign, one = (np.array(values, np.float32) for values in ([-1, 1], [1, 0]))
    chain.add_with("Mul", {"sign": sign}, "signed")
    chain.add_with("Add", {"one": one}, "both")


def _check_names(model: ModelProto, names: list[str]) -> None:
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    if clash := sorted(taken.intersection(names)):
        raise BuildError(f"a tensor of the graph is called {clash[0]}; export it with another name")
