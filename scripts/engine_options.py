"""The options of `build_repository` that say what runs the graphs, and in which precision."""

import argparse
import logging
from pathlib import Path, PurePosixPath

from scripts.repository import calibration, tensorrt, tuning
from scripts.repository.errors import BuildError
from scripts.repository.execution import Request
from scripts.repository.graphs import engines
from scripts.repository.tuning import ENGINES, GPU_ENGINES, PRECISIONS, Tuning

logger = logging.getLogger(__name__)

AUTO = "auto"
# bf16 needs OpenVINO. onnxruntime has no INT8 kernels for convolutions on a GPU, so that INT8 takes
# longer than FP32: https://github.com/microsoft/onnxruntime/issues/12229
GPU_PRECISIONS = ("fp32", "fp16")
# What Docker and Podman create in a container.
CONTAINER_FILES = (Path("/.dockerenv"), Path("/run/.containerenv"))


def add(group: argparse._ArgumentGroup) -> None:
    """Add the options."""
    group.add_argument(
        "--engine",
        choices=(*dict.fromkeys(ENGINES + GPU_ENGINES), AUTO),
        help="runs the graphs; openvino: on a CPU; tensorrt: on a GPU; auto: the faster one on a "
        "CPU, measured on this machine (default: onnxruntime, for bf16 openvino)",
    )
    group.add_argument(
        "--engine-cache",
        metavar="DIR",
        help="folder of the server, not of this machine, in which it keeps the engines that "
        f"tensorrt compiles (default: {tensorrt.DEFAULT_FOLDER}, which Docker Compose mounts)",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="fp16: graphs in FP16, for GPUs; bf16: for CPUs with AVX512-BF16 or AMX; int8: "
        "quantises the graphs, for CPUs with VNNI (default: %(default)s)",
    )
    group.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help=f"folder, searched recursively, of at least {calibration.RECOMMENDED} images like "
        "those to classify: int8 is calibrated on them, and the results are compared with those of "
        "fp32 (optional for fp16 and bf16)",
    )


def check(options: argparse.Namespace) -> None:
    """Check that engine, precision, device and images fit together.

    Raises:
        BuildError: they do not, or OpenVINO is needed and not installed.
    """
    engine, precision = options.engine, options.precision
    if options.device == "gpu":
        _check_gpu(options)
    elif engine == "tensorrt":
        raise BuildError("--engine tensorrt is for --device gpu; give both, or leave it out")
    if options.preprocess == "gpu":
        _check_preprocess(options)
    if options.engine_cache and engine != "tensorrt":
        raise BuildError("--engine-cache is for --engine tensorrt; leave it out")
    if (engine, precision) == ("onnxruntime", "bf16"):
        raise BuildError(
            "onnxruntime does not compute in bfloat16; give --engine openvino, or --precision fp32"
        )
    if precision == "int8" and not options.calibration:
        raise BuildError("--precision int8 requires --calibration with a folder of images")
    if precision == "fp32" and options.calibration:
        raise BuildError("--calibration requires --precision int8, bf16 or fp16")
    if options.calibration and not options.calibration.is_dir():
        raise BuildError(f"--calibration: no folder {options.calibration}; give one of images")
    if engine == "openvino" or precision == "bf16":
        engines.import_openvino()


def _check_preprocess(options: argparse.Namespace) -> None:
    if options.device != "gpu":
        raise BuildError("--preprocess gpu is for --device gpu; give both, or leave it out")
    if options.decoding == "exact":
        raise BuildError(
            "--preprocess gpu decodes with nvJPEG, not with the reference's bits; give "
            "--preprocess cpu for --decoding exact"
        )


def _check_gpu(options: argparse.Namespace) -> None:
    if options.engine and options.engine not in GPU_ENGINES:
        raise BuildError(f"--engine {options.engine} is for --device cpu; leave it out")
    if options.precision not in GPU_PRECISIONS:
        raise BuildError(
            f"--precision {options.precision} is for --device cpu; leave it out, or give "
            "--precision fp16"
        )
    if options.engine_cache and not PurePosixPath(options.engine_cache).is_absolute():
        raise BuildError(
            f"--engine-cache {options.engine_cache}: give the path from /, as the server has it"
        )


def request(options: argparse.Namespace) -> Request:
    """Say how graphs shall be computed; the log says what differs from the options."""
    cores = options.cores or tuning.cores()
    engine = options.engine or ("openvino" if options.precision == "bf16" else "onnxruntime")
    is_auto = engine == AUTO
    if is_auto:
        engine, reason = _unmeasured(options)
        is_auto = reason is None
        if reason:
            logger.warning("--engine auto is %s, without measuring: %s", engine, reason)
    if options.precision == "bf16" and not engines.has_bfloat16():
        logger.warning(
            "this CPU has no bfloat16 instructions (AVX512-BF16 or AMX): the embedded server "
            "computes in FP32 here, and Triton's image emulates bfloat16, which is slow; bf16 is "
            "not compared with fp32"
        )
    target = Tuning(
        options.device,
        options.optimize,
        cores,
        options.queue,
        engine,
        options.engine_cache,
        options.preprocess,
    )
    return Request(target, options.precision, auto=is_auto)


def _unmeasured(options: argparse.Namespace) -> tuple[str, str | None]:
    """Return the engine that auto is unless it is measured, and the reason for not doing so."""
    if options.precision == "bf16":
        return "openvino", "only OpenVINO computes in bfloat16"
    reason = None
    if options.cores:
        reason = "--cores is given, as for another machine; give --engine openvino to choose it"
    elif any(file.exists() for file in CONTAINER_FILES):
        reason = "a container may run on another machine; give --engine openvino to choose it"
    elif "openvino" not in engines.installed():
        reason = "OpenVINO is not installed; run pip install --group build"
    return "onnxruntime", reason
