"""Converts graphs to the versions of ONNX that servers support."""

import logging
from collections.abc import Iterator

import onnx.inliner
import onnxruntime
from onnx import ModelProto, version_converter

from scripts.repository.errors import BuildError
from scripts.repository.graphs.compare import Reference
from scripts.repository.graphs.runner import Runner
from scripts.repository.graphs.weights import restore_weights, store_raw, without_weights

logger = logging.getLogger(__name__)

# Supported by onnxruntime 1.19 (Triton 24.10) and later. IR 4 is the first version in which
# initializers do not have to be graph inputs.
IR_VERSIONS = (4, 10)
OPSETS = (7, 21)
# The first release of onnxruntime that loads an opset. Triton 26.09 and later have 1.27.
RELEASES = {22: "1.21", 23: "1.23", 24: "1.24", 25: "1.24", 26: "1.25"}
DEFAULT_DOMAINS = {"", "ai.onnx"}


def opset(model: ModelProto) -> int:
    """Read the version of the default operator set; 1 if the graph does not use it."""
    versions = (each.version for each in model.opset_import if each.domain in DEFAULT_DOMAINS)
    return max(map(int, versions), default=1)


def with_opset(model: ModelProto, lowest: int, highest: int) -> ModelProto:
    """Copy a graph, converted to the nearest opset from `lowest` to `highest`.

    Functions are replaced by their nodes, because the converter and OpenVINO do not know them.

    Raises:
        BuildError: the graph cannot be converted.
    """
    target = min(max(opset(model), lowest), highest)
    if target == opset(model) and not model.functions:
        copy = ModelProto()
        copy.CopyFrom(model)
        return copy
    slim, weights = without_weights(model)
    try:
        if slim.functions:
            slim = onnx.inliner.inline_local_functions(slim)
        converted: ModelProto = slim
        if target != opset(model):
            converted = version_converter.convert_version(slim, target)
    except Exception as error:  # RuntimeError, and others from C++
        raise BuildError(
            f"opset {opset(model)} cannot be converted to {target}, which Triton supports; "
            f"export the model with opset {lowest} to {highest}"
        ) from error
    if not converted.graph.sparse_initializer:  # the converter drops them
        converted.graph.sparse_initializer.extend(slim.graph.sparse_initializer)
    restore_weights(converted, weights)
    return converted


def conversions(model: ModelProto) -> Iterator[ModelProto]:
    """Convert a graph of a newer opset to older ones, first to one that all servers support."""
    newest = OPSETS[1]
    for target in (newest, *range(opset(model) - 1, newest, -1)):
        if target < opset(model):
            try:
                converted = with_opset(model, OPSETS[0], target)
            except BuildError:
                continue
            _change_ir_version(converted)
            yield converted


def servable(reference: Reference) -> ModelProto:
    """Copy a graph in versions of opset and IR that servers support.

    A newer opset is kept, with a warning, if it cannot be converted or the result differs.

    Raises:
        BuildError: an older opset cannot be converted.
    """
    model = reference.model
    try:
        copy = with_opset(model, *OPSETS)
        _change_ir_version(copy)
        if opset(copy) != opset(model):
            reference.check(Runner(copy, reference.signature).run_each(reference.images))
    except BuildError:
        if opset(model) < OPSETS[1]:
            raise
        copy = with_opset(model, 1, opset(model))
        _change_ir_version(copy)
        logger.warning(
            "the graph keeps opset %d, because it cannot be converted to %d; the server needs "
            "onnxruntime %s or later",
            *(opset(model), OPSETS[1], RELEASES.get(opset(model), onnxruntime.__version__)),
        )
    store_raw(copy)
    return copy


def _change_ir_version(model: ModelProto) -> None:
    oldest, newest = IR_VERSIONS
    model.ir_version = min(max(model.ir_version, oldest), newest)
