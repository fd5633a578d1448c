"""The bare model: onnxruntime runs the ensemble's graph in a process of its own, with no server.

Run as `python -m scripts.measuring.gpu.bare GRAPH PROVIDER SECONDS SERIES:BATCH...`, it prints a
JSON object for each load, with its figures or why it failed.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from scripts.embedded import gpu
from scripts.embedded.installation import prepend
from scripts.errors import last_line
from scripts.measuring.figures import Figures
from scripts.measuring.gpu.plan import BARE
from scripts.measuring.gpu.usage import Usage

ROOT = Path(__file__).parents[3]
NAMES = {
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}
WARM_UP_RUNS = 3  # the first one searches the fastest convolutions
LOG_ERRORS = 3
Load = tuple[str, int]  # a series and a batch size
Output = dict[str, Any]


def measure(graph: Path, provider: str, loads: Sequence[Load], seconds: float) -> Iterator[Output]:
    """Measure loads one after another; yields their figures, or `failed` with the reason."""
    command = [sys.executable, "-m", __name__, str(graph), provider, str(seconds)]
    command += [f"{series}:{batch}" for series, batch in loads]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        left = list(loads)
        try:
            for line in process.stdout or ():
                left.pop()
                yield json.loads(line)
        finally:
            process.kill()
        process.wait()
        errors.seek(0)
        reason = f"the process ended ({process.returncode}): {last_line(errors.read())}"
        yield from [{"failed": reason} for _ in left]


def environment() -> dict[str, str]:
    """Return this process's environment, in which CUDA's libraries are found as by the server."""
    return {**os.environ, "LD_LIBRARY_PATH": prepend(gpu.libraries(), "LD_LIBRARY_PATH")}


def main(graph: str, provider: str, seconds: str, *loads: str) -> None:
    """Measure in this process."""
    try:
        session = _session(graph, provider)
    except Exception as error:  # noqa: BLE001 - onnxruntime raises any kind
        for _ in loads:
            _write({"failed": _reason(error)})
        return
    for load in loads:
        series, _, batch = load.partition(":")
        try:
            _write(_turn(session, provider, int(batch), float(seconds), on_device=series == BARE))
        except Exception as error:  # noqa: BLE001 - as too little memory for a batch
            _write({"failed": _reason(error)})


def _session(graph: str, provider: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_ERRORS
    # With its fallback to the CPU, onnxruntime prints an error to the standard output and goes on.
    session = onnxruntime.InferenceSession(
        graph, options, providers=[NAMES[provider]], enable_fallback=0
    )
    if session.get_providers()[0] != NAMES[provider]:
        raise RuntimeError(f"onnxruntime cannot use {NAMES[provider]} here")
    return session


def _turn(
    session: onnxruntime.InferenceSession,
    provider: str,
    batch: int,
    seconds: float,
    *,
    on_device: bool,
) -> Figures:
    """Run batches for some seconds; the percentiles are of the time for a batch."""
    device = "cpu" if provider == "cpu" else "cuda"
    image = session.get_inputs()[0]
    shape = (batch, *image.shape[1:])
    values = np.random.default_rng(0).integers(0, 256, shape).astype(TYPES[image.type])
    binding = session.io_binding()
    on_gpu = onnxruntime.OrtValue.ortvalue_from_numpy(values, device, 0)
    for output in session.get_outputs():
        binding.bind_output(output.name, device if on_device else "cpu")

    def run() -> None:
        if on_device:
            binding.bind_ortvalue_input(image.name, on_gpu)
        else:
            binding.bind_cpu_input(image.name, values)
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    for _ in range(WARM_UP_RUNS):
        run()
    times: list[float] = []
    with Usage() as usage:
        start = now = time.perf_counter()
        while not times or now - start < seconds:
            begin = now
            run()
            now = time.perf_counter()
            times.append(now - begin)
    p99 = np.percentile(times, 99, method="inverted_cdf")
    rate = {"rate": batch * len(times) / (now - start)}
    percentiles = {"p50_ms": 1000 * statistics.median(times), "p99_ms": 1000 * float(p99)}
    return rate | percentiles | usage.figures


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _write(output: Output) -> None:
    sys.stdout.write(json.dumps(output) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, BrokenPipeError):  # the process that started it has ended
        main(*sys.argv[1:])
