"""FP32 classifiers to INT8 ones, for CPUs with VNNI instructions.

Weights and activations become eight bits wide, images and scores stay FP32, so that what is served
is configured alike. The graph holds standard operators alone (QuantizeLinear and DequantizeLinear
around each layer), and onnxruntime fuses them when it loads it.
"""

import tempfile
from collections.abc import Iterator
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
from scripts.repository.graphs.prepare import (
    LOG_NOTHING,
    OPSETS,
    Prepared,
    Runner,
    first_line,
    read_signature,
    with_opset,
)
from scripts.repository.manifest import Quantization
from scripts.repository.steps.preprocess.recipe import Recipe

# The first opset whose QuantizeLinear takes a scale for each channel, and its release's IR.
OPSET = 13
IR_VERSION = 7
WEIGHTED = {"Conv", "Gemm", "MatMul"}
# Ahead of these a layer is large, and its rounding errors average out.
POOLING = {"AveragePool", "GlobalAveragePool", "ReduceMean"}
# What tells onnxruntime's quantiser that BatchNorm is folded; it warns otherwise.
FOLDED = {"onnx.quant.pre_process": "onnxruntime.quant"}


@dataclass(frozen=True)
class Quantized:
    """An INT8 graph, and what it was made from and gave."""

    prepared: Prepared
    quantization: Quantization


def quantize(
    prepared: Prepared, images: Images, recipe: Recipe, *, progress: Progress | None = None
) -> Quantized:
    """Calibrate a classifier on images, quantise it, and compare the two.

    `progress` is called with the number of images run and of all to run. One image is held at a
    time.

    Raises:
        BuildError: the graph cannot be quantised.
        OSError: an image can no longer be read.
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
    """Counts images over several passes."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def each(self, tensors: Iterator[npt.NDArray[np.float32]]) -> Iterator[npt.NDArray[np.float32]]:
        for tensor in tensors:
            yield tensor
            self._done += 1
            if self._progress:
                self._progress(self._done, self._total)


class _Reader:
    """Hands out what to calibrate on, as onnxruntime asks for it."""

    def __init__(self, name: str, tensors: Iterator[npt.NDArray[np.float32]]) -> None:
        self._name, self._tensors = name, tensors

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        tensor = next(self._tensors, None)
        return None if tensor is None else {self._name: tensor}


def _folded(model: ModelProto) -> ModelProto:
    """Fold BatchNorm into the convolutions: by itself it would stay FP32 between INT8 layers."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_NOTHING
    # What lies above is for the machine at hand, with onnxruntime's own operators.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "folded.onnx")
        options.optimized_model_filepath = str(file)
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise BuildError(f"onnxruntime does not fold it: {first_line(error)}") from error
        folded = onnx.load(file)
    for number, node in enumerate(folded.graph.node):
        node.name = f"node_{number}"  # unique, to tell by name what is not to be quantised
    onnx.helper.set_model_props(folded, FOLDED)
    return folded


def _quantized(model: ModelProto, reader: _Reader) -> ModelProto:
    kept = [*_tail(model), *_normalizations(model)]
    with tempfile.TemporaryDirectory() as folder:
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
                # Keeps two numbers of each tensor; the others keep all activations.
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=kept,
            )
        except (BuildError, OSError):
            raise
        except Exception as error:  # of any kind: the quantiser checks little by itself
            raise BuildError(f"onnxruntime does not quantise it: {first_line(error)}") from error
        return onnx.load(file)


def _tail(model: ModelProto) -> list[str]:
    """Name the nodes at the end that stay FP32, since eight bits would round scores to ties."""
    nodes = list(model.graph.node)
    layers = [at for at, node in enumerate(nodes) if node.op_type in WEIGHTED]
    is_averaged = any(node.op_type in POOLING for node in nodes[layers[-1] :]) if layers else False
    if len(layers) < (1 if is_averaged else 2):
        raise BuildError("it has nothing to quantise ahead of its scores; build it as fp32")
    return [node.name for node in nodes[layers[-1] + is_averaged :]]


def _normalizations(model: ModelProto) -> list[str]:
    """Name those that no convolution took up; one scale for all channels would ruin them."""
    return [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]


def _servable(model: ModelProto, prepared: Prepared) -> ModelProto:
    """Keep what is standard ONNX and what the FP32 graph says of itself.

    Raises:
        BuildError: the graph needs more than it did, or takes or gives something else.
    """
    known = {opset.domain for opset in prepared.model.opset_import} | {"", "ai.onnx"}
    if foreign := {node.domain for node in model.graph.node} - known:
        raise BuildError(f"quantised, it needs operators of {', '.join(sorted(foreign))}")
    needed = [opset for opset in model.opset_import if opset.domain in known]
    del model.opset_import[:]
    model.opset_import.extend(needed)
    del model.metadata_props[:]
    model.metadata_props.extend(prepared.model.metadata_props)
    del model.graph.value_info[:]
    model.ir_version = max(prepared.model.ir_version, IR_VERSION)
    if read_signature(model) != prepared.signature:
        raise BuildError("quantised, it takes or gives something else")
    return model


def _agreeing(
    prepared: Prepared, model: ModelProto, tensors: Iterator[npt.NDArray[np.float32]]
) -> int:
    """Count the images to which both graphs give the same class the highest score."""
    fp32, int8 = (Runner(graph, prepared.signature) for graph in (prepared.model, model))
    return sum(int(fp32.run(each).argmax() == int8.run(each).argmax()) for each in tensors)
