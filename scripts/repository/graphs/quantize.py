"""Converts FP32 classifiers to INT8, for CPUs with VNNI instructions.

Weights and activations become eight bits wide. The input and the scores stay FP32, so the model's
configuration is the same. The graph uses only standard operators (QuantizeLinear and
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
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

from scripts.repository import calibration
from scripts.repository.calibration import Images, Progress
from scripts.repository.errors import BuildError
from scripts.repository.graphs.opset import OPSETS, with_opset
from scripts.repository.graphs.prepare import Prepared
from scripts.repository.graphs.runner import LOG_NOTHING, Runner, first_line
from scripts.repository.graphs.signature import read_signature
from scripts.repository.manifest import Quantization
from scripts.repository.steps.preprocess.recipe import Recipe

# The first opset with per-channel scales in QuantizeLinear, and the IR of the same ONNX release.
OPSET = 13
IR_VERSION = 7
WEIGHTED = {"Conv", "Gemm", "MatMul"}
# A layer in front of these has many outputs, whose rounding errors average out.
POOLING = {"AveragePool", "GlobalAveragePool", "ReduceMean"}
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
    """An INT8 graph, and the record of its calibration and comparison."""

    prepared: Prepared
    quantization: Quantization


def quantize(
    prepared: Prepared, images: Images, recipe: Recipe, *, progress: Progress | None = None
) -> Quantized:
    """Calibrate a classifier on images, quantise it, and compare both graphs.

    `progress` is called with the number of images processed so far and their total. Images are
    loaded one at a time.

    Raises:
        BuildError: the graph cannot be quantised.
        OSError: an image cannot be read any more.
    """
    count = _Count(len(images.calibrate) + len(images.compare), progress)
    folded = _folded(with_opset(prepared.model, OPSET, OPSETS[1]))
    reader = _Reader(
        prepared.signature.input, count.each(calibration.pixels(images.calibrate, recipe))
    )
    model = _servable(_quantized(folded, reader), prepared)
    pixels = count.each(calibration.pixels(images.compare, recipe))
    agreeing = _agreeing(prepared, model, pixels)
    quantization = Quantization(
        images=len(images.calibrate),
        images_sha256=images.sha256,
        compared=len(images.compare),
        agreeing=agreeing,
        held_out=images.held_out,
    )
    return Quantized(replace(prepared, model=model), quantization)


class _Count:
    """Reports progress over several passes."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def each(self, tensors: Iterator[npt.NDArray[np.float32]]) -> Iterator[npt.NDArray[np.float32]]:
        for tensor in tensors:
            yield tensor
            self._done += 1
            if self._progress:
                self._progress(self._done, self._total)


class _Reader:
    """Provides calibration images through the interface that onnxruntime expects."""

    def __init__(self, name: str, tensors: Iterator[npt.NDArray[np.float32]]) -> None:
        self._name, self._tensors = name, tensors

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        tensor = next(self._tensors, None)
        return None if tensor is None else {self._name: tensor}


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
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise BuildError(f"onnxruntime cannot fold the graph: {first_line(error)}") from error
        folded = onnx.load(file)
    for number, node in enumerate(folded.graph.node):
        node.name = f"node_{number}"  # `nodes_to_exclude` needs unique names
    onnx.helper.set_model_props(folded, METADATA)
    return folded


def _quantized(model: ModelProto, reader: _Reader) -> ModelProto:
    excluded = [*_tail(model), *_normalizations(model)]
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


def _servable(model: ModelProto, prepared: Prepared) -> ModelProto:
    """Restore the opset imports and metadata of the FP32 graph.

    Raises:
        BuildError: quantisation added foreign operators or changed the signature.
    """
    known = {opset.domain for opset in prepared.model.opset_import} | {"", "ai.onnx"}
    if foreign := {node.domain for node in model.graph.node} - known:
        raise BuildError(f"the quantised graph needs operators of {', '.join(sorted(foreign))}")
    needed = [opset for opset in model.opset_import if opset.domain in known]
    del model.opset_import[:]
    model.opset_import.extend(needed)
    del model.metadata_props[:]
    model.metadata_props.extend(prepared.model.metadata_props)
    del model.graph.value_info[:]
    model.ir_version = max(prepared.model.ir_version, IR_VERSION)
    if read_signature(model) != prepared.signature:
        raise BuildError("the quantised graph has another signature")
    return model


def _agreeing(
    prepared: Prepared, model: ModelProto, tensors: Iterator[npt.NDArray[np.float32]]
) -> int:
    """Count the images for which both graphs have the same top-1 class."""
    fp32, int8 = (Runner(graph, prepared.signature) for graph in (prepared.model, model))
    return sum(int(fp32.run(each).argmax() == int8.run(each).argmax()) for each in tensors)
