"""Lets TensorRT run a graph on a GPU, as an accelerator of Triton's `onnxruntime` backend.

TensorRT compiles an engine for a GPU and for a range of shapes, which takes minutes. The engine's
file is read again when the server starts next.
"""

from dataclasses import replace

from scripts.repository import digests
from scripts.repository.config import Part
from scripts.repository.errors import BuildError
from scripts.repository.graphs.signature import Signature
from scripts.repository.tuning import GPU_BATCHES

# The folder that docker-compose.yml mounts for the engines.
DEFAULT_FOLDER = "/engines"
WORKSPACE_BYTES = 4 << 30
# TensorRT takes UINT8 only where a conversion follows, and no FP64.
# https://github.com/NVIDIA/TensorRT/issues/3985
INPUT_TYPES = ("FP32", "FP16")
# What separates the parts of a profile. onnxruntime cannot read a name with one of them: see
# ParseProfileShapes in its core/providers/tensorrt/tensorrt_execution_provider_utils.h.
SEPARATORS = ",:"
# Enough of a SHA-256 to tell the graphs of a model apart.
DIGITS = 16


def check(signature: Signature) -> None:
    """Check that TensorRT takes a classifier's own input.

    Raises:
        BuildError: it does not.
    """
    name, kind = signature.input, signature.input_type
    advice = "build it with --engine onnxruntime"
    if kind not in INPUT_TYPES:
        raise BuildError(
            f"TensorRT cannot take the graph's input {name}, which is {kind}; {advice}"
        )
    if set(name) & set(SEPARATORS):
        raise BuildError(
            f"TensorRT cannot take the graph's input {name}, whose name has a comma or a colon; "
            f"{advice}"
        )


def accelerated(part: Part, files: dict[str, bytes], folder: str) -> Part:
    """Let TensorRT run a graph with batches of `GPU_BATCHES` and of any size between.

    Args:
        part: a graph whose only input has a known size.
        files: the files of the graph.
        folder: the folder for engines, as the server has it.
    """
    return replace(part, tensorrt=_parameters(part, files, folder))


def _parameters(part: Part, files: dict[str, bytes], folder: str) -> dict[str, str]:
    """Write the accelerator's parameters.

    Neither `precision_mode` nor another one changes the precision, since TensorRT 11 computes in
    the types of the graph.
    """
    (image,) = part.inputs
    smallest, preferred, largest = (
        f"{image.name}:{'x'.join(map(str, (batch, *image.dims)))}" for batch in GPU_BATCHES
    )
    # The rest of an engine's name is a digest of the names in the graph, but not of the weights,
    # and the GPU's compute capability. Without a digest of its own, a graph with new weights would
    # be answered by the engine of the old ones. See TRTGenerateId in the same file.
    digest = digests.of_text("".join(map(digests.of_bytes, files.values())))[:DIGITS]
    return {
        "max_workspace_size_bytes": str(WORKSPACE_BYTES),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_engine_cache_prefix": f"{part.name}_{digest}",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
        "trt_profile_min_shapes": smallest,
        "trt_profile_opt_shapes": preferred,
        "trt_profile_max_shapes": largest,
    }
