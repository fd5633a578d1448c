"""How busy the GPU and the CPU are while something is measured."""

import statistics
import threading
import time
from typing import Any

import psutil

from scripts.measuring.figures import Figures

PERIOD_SECONDS = 0.1
try:
    import pynvml
except ImportError:  # the figures of the GPU are then missing
    pynvml = None


def gpu() -> Any:  # noqa: ANN401 - a handle of pynvml, which has no types
    """Return NVML's handle of the first GPU, or None if NVML or a GPU is missing."""
    if pynvml is None:
        return None
    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError:
        return None


def gpu_description() -> dict[str, str]:
    """Tell the GPU's name, its driver and the newest CUDA that the driver runs; empty without."""
    handle = gpu()
    if handle is None:
        return {}
    version = pynvml.nvmlSystemGetCudaDriverVersion()
    return {
        "gpu": pynvml.nvmlDeviceGetName(handle),
        "driver": pynvml.nvmlSystemGetDriverVersion(),
        "driver's CUDA": f"{version // 1000}.{version % 1000 // 10}",
    }


class Usage:
    """Samples within a `with` block; `figures` tells the use afterwards.

    `gpu_share` is the mean share of the time in which the GPU ran a kernel, `gpu_memory_mib` the
    most memory in use, both of the first GPU and all programs. `cpu_cores` are the cores that were
    busy in the mean, with all programs. Figures that cannot be read are missing.
    """

    def __init__(self) -> None:
        self.figures: Figures = {}
        self._gpu = gpu()
        self._shares: list[float] = []
        self._bytes: list[int] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Usage":
        self._start, self._busy = time.monotonic(), _busy_seconds()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        seconds = time.monotonic() - self._start
        self.figures["cpu_cores"] = (_busy_seconds() - self._busy) / seconds
        if self._shares:
            self.figures["gpu_share"] = statistics.fmean(self._shares)
            self.figures["gpu_memory_mib"] = max(self._bytes) / 2**20

    def _sample(self) -> None:
        while self._gpu is not None and not self._ended.wait(PERIOD_SECONDS):
            try:
                share = pynvml.nvmlDeviceGetUtilizationRates(self._gpu).gpu / 100
                used = pynvml.nvmlDeviceGetMemoryInfo(self._gpu).used
            except pynvml.NVMLError:
                return
            self._shares.append(share)
            self._bytes.append(used)


def _busy_seconds() -> float:
    """Return the CPU time of all programs since the machine started, in seconds."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait)
