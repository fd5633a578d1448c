"""How a model repository is fitted to the machine that is to serve it.

docs/performance.md has the measurements behind these numbers.
"""

import os
from dataclasses import dataclass

DEVICES = ("cpu", "gpu")
GOALS = ("throughput", "latency")

# More sessions of a graph would each hold its weights again: 240 MB for ResNet-152.
MOST_GRAPH_INSTANCES = 8
MOST_PREPROCESS_INSTANCES = 16
# A Python backend step hands over a few images at a time for the price of one. An instance that
# took the whole queue would leave its neighbours idle.
STEP_BATCH = 4
CPU_BATCH = 2
# Requests that wait, before others are refused.
CPU_QUEUE = 64
GPU_QUEUE = 512
# Decoded images that keep the graphs busy; more would only wait.
CPU_AHEAD = 8
GPU_AHEAD = 64


def cores() -> int:
    """Count the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Tuning:
    """For a CPU with so many cores, or for a GPU beside them; `goal` is for a CPU alone.

    For throughput each core runs an image of its own, for latency all of them run the same one.
    Beyond `waiting` requests others are refused; None chooses by the device.
    """

    device: str = "cpu"
    goal: str = "throughput"
    cores: int = 2
    waiting: int | None = None

    @property
    def is_cpu(self) -> bool:
        """Whether the graphs run on the CPU, too."""
        return self.device == "cpu"

    @property
    def preprocess_instances(self) -> int:
        """Processes that decode images, one more than there are cores.

        If all of them end a batch at the same moment, Triton can miss it, and where the queue is
        full nothing tells it for half a second.
        """
        return min(self.cores + 1, MOST_PREPROCESS_INSTANCES)

    @property
    def graph_instances(self) -> int | None:
        """Sessions of each graph; None leaves one on each GPU."""
        if not self.is_cpu:
            return None
        return 1 if self.goal == "latency" else min(self.cores, MOST_GRAPH_INSTANCES)

    @property
    def graph_threads(self) -> int | None:
        """Threads of each session, where the CPU runs it."""
        return self.cores // self.graph_instances if self.graph_instances else None

    @property
    def graph_batch(self) -> int | None:
        """Images that a graph takes at a time at most; None for what the queue holds."""
        return CPU_BATCH if self.is_cpu else None

    @property
    def queue(self) -> int:
        """Requests that wait to be decoded at most, or for a graph that is addressed by itself."""
        return self.waiting or (CPU_QUEUE if self.is_cpu else GPU_QUEUE)

    @property
    def ahead(self) -> int:
        """Images of each decoding process that wait for a graph, or are in it, at most."""
        return CPU_AHEAD if self.is_cpu else GPU_AHEAD

    def __str__(self) -> str:
        if not self.is_cpu:
            return f"a GPU and {self.cores} cores"
        return f"{self.goal} on {self.cores} CPU cores"
