"""The engines that run graphs on a CPU: onnxruntime and OpenVINO, here without a server."""

import re
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime

from scripts.repository.errors import BuildError
from scripts.repository.graphs.runner import LOG_NOTHING, Array, first_line
from scripts.repository.tuning import ENGINES

# Runs a graph with one input on a tensor and returns one of its outputs. It raises BuildError if
# the engine cannot.
Run = Callable[[Array], Array]

TITLES = {"onnxruntime": "onnxruntime", "openvino": "OpenVINO", "tensorrt": "TensorRT"}
# The lines of OpenVINO's errors that say where in its code they were raised.
TRACE = re.compile(
    r"Exception from|Check '|FrontEnd API|Model wasn't fully|Summary:|While validating|"
    r"-- .* with a message:|$"
)


def installed() -> tuple[str, ...]:
    """Return those of `ENGINES` that can be imported, in that order."""
    return tuple(engine for engine in ENGINES if find_spec(engine))


@cache
def has_bfloat16() -> bool:
    """Whether this CPU has bfloat16 instructions that OpenVINO uses: AVX512-BF16 or AMX."""
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def import_openvino() -> ModuleType:
    """Import OpenVINO, which takes 0.2 s and is not needed by onnxruntime's users.

    Raises:
        BuildError: it is not installed.
    """
    # Without this package, OpenVINO does not send usage statistics.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino  # noqa: PLC0415
    except ImportError as error:
        raise BuildError("OpenVINO is not installed; run pip install --group build") from error
    module: ModuleType = openvino
    return module


def load(
    engine: str,
    graph: Path | bytes,
    *,
    precision: str = "fp32",
    threads: int = 1,
    output: str | None = None,
    batches: bool = False,
) -> Run:
    """Load a graph as an instance of the embedded server's backend does, on some threads.

    Args:
        engine: one of `ENGINES`.
        graph: an ONNX file, or its content if it needs no other file.
        precision: one of `PRECISIONS`. Only `bf16` is a setting of the engine, and only OpenVINO
            has it; otherwise the graph itself determines the precision.
        threads: threads that compute one batch.
        output: the name of the output to return; None selects the first one.
        batches: let OpenVINO compute a batch at once, as Triton's own backend does, and not image
            by image, which takes less time.

    Raises:
        BuildError: the engine is not installed, or cannot load the graph.
    """
    try:
        if engine == "openvino":
            run = _openvino(graph, precision, threads, output, batches=batches)
        else:
            run = _onnxruntime(graph, threads, output)
    except BuildError:
        raise
    except Exception as error:
        raise BuildError(f"{TITLES[engine]} cannot load the graph: {_reason(error)}") from error

    def checked(batch: Array) -> Array:
        try:
            return run(batch)
        except Exception as error:
            raise BuildError(f"{TITLES[engine]} cannot run the graph: {_reason(error)}") from error

    return checked


def _onnxruntime(graph: Path | bytes, threads: int, output: str | None) -> Run:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_NOTHING
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = [output or session.get_outputs()[0].name]

    def run(batch: Array) -> Array:
        scores: Array = session.run(outputs, {name: batch})[0]
        return scores

    return run


def _openvino(
    graph: Path | bytes, precision: str, threads: int, output: str | None, *, batches: bool
) -> Run:
    openvino = import_openvino()
    core = openvino.Core()
    # What embedded/backends/openvino sets.
    properties = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" and has_bfloat16() else "f32",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    model = core.read_model(graph)
    if not batches:
        shape = model.input(0).partial_shape
        shape[0] = 1
        model.reshape(shape)
    compiled = core.compile_model(model, "CPU", properties)
    request = compiled.create_infer_request()
    port = compiled.output(output) if output else compiled.output(0)

    def run(batch: Array) -> Array:
        # A tensor that shares its memory has to be writable, though nothing writes to it.
        shared = openvino.Tensor(np.require(batch, requirements=["C", "W"]), shared_memory=True)
        request.infer([shared])
        return np.array(request.get_tensor(port).data)  # the next batch overwrites it

    return run if batches else lambda batch: np.concatenate([run(image[None]) for image in batch])


def _reason(error: Exception) -> str:
    """Shorten an engine's error message to the line that says what is wrong."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if not TRACE.match(line)), first_line(error))
