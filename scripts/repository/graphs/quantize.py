"""Converts FP32 classifiers to INT8, for CPUs with VNNI instructions.

Weights and activations become eight bits wide. The input and the scores keep their types, so the
model's configuration is the same. The graph uses only standard operators (QuantizeLinear and
DequantizeLinear around each layer), which onnxruntime fuses when it loads the graph.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

from scripts.repository import calibration, onnx_file
from scripts.repository.calibration import Images, Progress
from scripts.repository.errors import BuildError
from scripts.repository.graphs.batches import looped
from scripts.repository.graphs.compare import precision
from scripts.repository.graphs.loop import dims
from scripts.repository.graphs.opset import OPSETS, with_opset
from scripts.repository.graphs.prepare import Prepared
from scripts.repository.graphs.runner import LOG_NOTHING, Array, first_line, session
from scripts.repository.graphs.tensors import tensor
from scripts.repository.manifest import Quantization
from scripts.repository.steps.preprocess.recipe import Recipe

# The first opset with per-channel scales in QuantizeLinear, and the IR of the same ONNX release.
OPSET = 13
IR_VERSION = 7
WEIGHTED = {"Conv", "Gemm", "MatMul"}
# A layer in front of these has many outputs, whose rounding errors average out.
POOLING = {"AveragePool", "GlobalAveragePool", "ReduceMean"}
# What transformers compute between their layers. Measured on two of them: with these in INT8, the
# scores differ from those of FP32 two to five times as much, and OpenVINO is slower.
BETWEEN_LAYERS = {"Add", "Mul", "LayerNormalization", "Softmax", "Sigmoid", "Where", "Gather"}
# Sums depend on how threads share the work, so the graph is calibrated on one. The quantiser makes
# its own session, which takes these options from the graph if the variable is set.
OPTIONS_FROM_GRAPH = "ORT_LOAD_CONFIG_FROM_MODEL"
ONE_THREAD = {"session_options": {"intra_op_num_threads": 1, "graph_optimization_level": 0}}
METADATA = {
    "onnx.quant.pre_process": "onnxruntime.quant",  # BatchNorm is folded; without it, a warning
    "ort_config": json.dumps(ONE_THREAD),
}


@dataclass(frozen=True)
class Quantized:
    """An INT8 graph, and the record of its calibration."""

    prepared: Prepared
    quantization: Quantization


def quantize(
    prepared: Prepared, images: Images, recipe: Recipe, *, progress: Progress | None = None
) -> Quantized:
    """Calibrate a classifier on images, and quantise it.

    `progress` is called with the number of images processed so far and their total. Images are
    loaded one at a time.

    Raises:
        BuildError: the graph cannot be quantised, or is quantised already.
        OSError: an image cannot be read any more.
    """
    graph = prepared.body or prepared.model
    _check_precision(graph)
    folded = _folded(with_opset(graph, OPSET, max(OPSETS[1], prepared.opset)))
    reader = _Reader(graph, prepared, images, recipe, progress)
    model = _servable(_quantized(folded, reader), graph)
    quantized = replace(prepared, model=model)
    if prepared.body:
        quantized = replace(prepared, model=looped(model, prepared.signature), body=model)
    return Quantized(quantized, Quantization(len(images.calibrate), images.sha256))


class _Reader:
    """Provides calibration images through the interface that onnxruntime expects.

    A graph with a fixed batch size gets batches of the same image.
    """

    def __init__(
        self,
        graph: ModelProto,
        prepared: Prepared,
        images: Images,
        recipe: Recipe,
        progress: Progress | None,
    ) -> None:
        self._name, self._signature = prepared.signature.input, prepared.signature
        self._batch = dims(graph.graph.input[0])[0] or 1
        self._pixels = calibration.pixels(images.calibrate, recipe, progress=progress)
        self._recipe = recipe

    def get_next(self) -> dict[str, Array] | None:
        pixels = next(self._pixels, None)
        if pixels is None:
            return None
        image = tensor(pixels, self._recipe, self._signature)
        return {self._name: np.repeat(image, self._batch, axis=0)}


def _check_precision(model: ModelProto) -> None:
    found = precision(model)
    if found == "INT8":
        raise BuildError("the graph is quantised already; build it with --precision fp32")
    if found != "FP32":
        raise BuildError(
            f"the graph computes in {found}, which cannot be quantised; give the FP32 graph, or "
            "build it with --precision fp32"
        )
    if onnx_file.is_large(model):
        raise BuildError("the graph exceeds 2 GiB; build it with --precision fp32")


def _folded(model: ModelProto) -> ModelProto:
    """Fold BatchNorm into the convolutions; otherwise it stays FP32 between INT8 layers."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_NOTHING
    # Higher levels optimise for this machine, with onnxruntime's own operators.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "folded.onnx")
        options.optimized_model_filepath = str(file)
        try:
            session(model, options)
        except Exception as error:
            raise BuildError(f"onnxruntime cannot fold the graph: {first_line(error)}") from error
        folded = onnx.load(file)
    for number, node in enumerate(folded.graph.node):
        node.name = f"node_{number}"  # `nodes_to_exclude` needs unique names
    onnx.helper.set_model_props(folded, METADATA)
    return folded


def _quantized(model: ModelProto, reader: _Reader) -> ModelProto:
    excluded = [*_tail(model), *_normalizations(model), *_between_layers(model)]
    with tempfile.TemporaryDirectory() as folder, _options_from_graph():
        file = Path(folder, "quantized.onnx")
        try:
            quantize_static(
                model,
                file,
                reader,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                # VNNI multiplies unsigned by signed bytes.
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                # Keeps two numbers per tensor; the other methods keep all activations in memory.
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=excluded,
            )
        except (BuildError, OSError):
            raise
        except Exception as error:  # the quantiser raises many types
            raise BuildError(
                f"onnxruntime cannot quantise the graph: {first_line(error)}"
            ) from error
        return onnx.load(file)


@contextmanager
def _options_from_graph() -> Iterator[None]:
    before = os.environ.get(OPTIONS_FROM_GRAPH, "0")
    os.environ[OPTIONS_FROM_GRAPH] = "1"
    try:
        yield
    finally:
        os.environ[OPTIONS_FROM_GRAPH] = before


def _tail(model: ModelProto) -> list[str]:
    """Name the last nodes, which stay FP32 because eight bits would round scores to ties."""
    nodes = list(model.graph.node)
    layers = [at for at, node in enumerate(nodes) if node.op_type in WEIGHTED]
    is_averaged = any(node.op_type in POOLING for node in nodes[layers[-1] :]) if layers else False
    if len(layers) < (1 if is_averaged else 2):
        raise BuildError(
            "the graph has nothing to quantise before its last layer; use --precision fp32"
        )
    return [node.name for node in nodes[layers[-1] + is_averaged :]]


def _normalizations(model: ModelProto) -> list[str]:
    """Name the nodes that were not folded; one scale for all channels is too coarse for them."""
    return [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]


def _between_layers(model: ModelProto) -> list[str]:
    """Name the nodes of `BETWEEN_LAYERS` in a graph with attention, a MatMul without weights."""
    computed = {name for node in model.graph.node for name in node.output}
    products = (node for node in model.graph.node if node.op_type == "MatMul")
    if not any(computed.issuperset(node.input) for node in products):
        return []
    return [node.name for node in model.graph.node if node.op_type in BETWEEN_LAYERS]


def _servable(model: ModelProto, original: ModelProto) -> ModelProto:
    """Restore the tensors, opset imports and metadata of the FP32 graph.

    Raises:
        BuildError: quantisation added foreign operators.
    """
    known = {opset.domain for opset in original.opset_import} | {"", "ai.onnx"}
    if foreign := {node.domain for node in model.graph.node} - known:
        raise BuildError(f"the quantised graph needs operators of {', '.join(sorted(foreign))}")
    needed = [opset for opset in model.opset_import if opset.domain in known]
    del model.opset_import[:]
    model.opset_import.extend(needed)
    del model.metadata_props[:]
    model.metadata_props.extend(original.metadata_props)
    del model.graph.value_info[:]
    del model.graph.input[:], model.graph.output[:]
    model.graph.input.extend(original.graph.input)
    model.graph.output.extend(original.graph.output)
    model.ir_version = max(original.ir_version, IR_VERSION)
    return model
