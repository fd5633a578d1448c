"""Every number of a model repository that depends on the machine that serves it.

docs/performance.md has the measurements behind these numbers.
"""

import os
from dataclasses import dataclass

DEVICES = ("cpu", "gpu")
GOALS = ("throughput", "latency")
# What runs the graphs on a CPU, and on a GPU.
ENGINES = ("onnxruntime", "openvino")
GPU_ENGINES = ("onnxruntime", "tensorrt")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")

# The largest batch that one request may bring.
MAX_BATCH_SIZE = 32
# The most classes that a client gets for each image: one of ImageNet's 1,000 can get all.
MAX_TOP_K = 1000
# Each further session of a graph holds its weights again: 240 MB for ResNet-152.
MAX_GRAPH_INSTANCES = 8
# On each GPU: while one instance computes, the other copies. An estimate, as no GPU has run it.
GPU_PIXELS_INSTANCES = 2
# The batches with which a graph is run before it is ready, so that no request waits until the
# engine has compiled or chosen its kernels. TensorRT makes its engine fast for the second one.
GPU_BATCHES = (1, 8, MAX_BATCH_SIZE)
MAX_PREPROCESS_INSTANCES = 16
# Processes on each GPU that decode there. An estimate, as no GPU has run it: see
# docs/gpu.md#preprocessing-on-the-gpu.
GPU_PREPROCESS_INSTANCES = 6
# One process ranks the scores of about 7,000 images/s (docs/gpu.md), which a GPU can exceed.
POSTPROCESS_INSTANCES, GPU_POSTPROCESS_INSTANCES = 1, 2
# A Python backend model receives a few requests in one call at almost the cost of one. An instance
# that received the whole queue would leave the other instances idle.
PREPROCESS_BATCH = 4
CPU_GRAPH_BATCH = 2
# Requests that wait in a queue before Triton rejects further ones.
CPU_QUEUE = 64
GPU_QUEUE = 512
# How long a request may wait for preprocessing; a full queue takes up to 14 s.
MAX_WAIT_SECONDS = 30
# Decoded images per worker that keep the graph busy; more would only add waiting time.
CPU_CREDITS = 8
GPU_CREDITS = 64


def cores() -> int:
    """Count the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Tuning:
    """The machine that serves the repository, and what to optimise for on it.

    `device` runs the graphs and is one of `DEVICES`. `goal` is one of `GOALS` and applies to a CPU:
    for throughput each core runs its own image, for latency all cores run the same image. `queue`
    overrides the number of requests that may wait; None selects the default of the device.
    `engine` is one of `ENGINES`, on a GPU one of `GPU_ENGINES`. `engine_cache` is the folder in
    which the server keeps TensorRT's engines; None selects the default. `preprocess` decodes images
    and is one of `DEVICES`.
    """

    device: str = "cpu"
    goal: str = "throughput"
    cores: int = 2
    queue: int | None = None
    engine: str = "onnxruntime"
    engine_cache: str | None = None
    preprocess: str = "cpu"

    @property
    def backend(self) -> str:
        """Triton's backend for the graphs, one of `ENGINES`; it runs them on a CPU, too.

        TensorRT is an accelerator of the backend `onnxruntime`.
        """
        return "onnxruntime" if self.engine == "tensorrt" else self.engine

    @property
    def is_cpu(self) -> bool:
        """Whether the graphs run on the CPU."""
        return self.device == "cpu"

    @property
    def preprocess_instances(self) -> int:
        """Processes that decode images: one more than there are cores, or those of each GPU.

        When all instances finish a batch at the same moment, Triton can miss it and does not
        schedule the next batch of a full queue for half a second.
        """
        if self.preprocess == "gpu":
            return GPU_PREPROCESS_INSTANCES
        return min(self.cores + 1, MAX_PREPROCESS_INSTANCES)

    @property
    def preprocess_batch(self) -> int | None:
        """The preferred batch size of preprocessing; None takes everything that waits."""
        return None if self.preprocess == "gpu" else PREPROCESS_BATCH

    @property
    def graph_instances(self) -> int | None:
        """Sessions of each graph; None selects Triton's default, one per GPU."""
        if not self.is_cpu:
            return None
        return 1 if self.goal == "latency" else min(self.cores, MAX_GRAPH_INSTANCES)

    @property
    def pixels_instances(self) -> int | None:
        """Sessions of the graph that an ensemble uses, on a GPU for each GPU."""
        return self.graph_instances if self.is_cpu else GPU_PIXELS_INSTANCES

    @property
    def postprocess_instances(self) -> int:
        """Processes that turn scores into classes."""
        return POSTPROCESS_INSTANCES if self.is_cpu else GPU_POSTPROCESS_INSTANCES

    @property
    def warm_up_batches(self) -> tuple[int, ...]:
        """The batches with which a graph is run before it is ready."""
        return (1,) if self.is_cpu else GPU_BATCHES

    @property
    def graph_threads(self) -> int | None:
        """Threads of each session on the CPU; None on a GPU."""
        return self.cores // self.graph_instances if self.graph_instances else None

    @property
    def engine_parameters(self) -> dict[str, str]:
        """What tells the engine's backend in Triton its threads; nothing on a GPU.

        onnxruntime has the threads of each session. In OpenVINO, Triton's instances share one
        compiled graph: each uses a stream of it, and the streams divide the threads among them.
        """
        if not (self.graph_instances and self.graph_threads):
            return {}
        if self.engine == "onnxruntime":
            return {"intra_op_thread_count": str(self.graph_threads)}
        return {
            "NUM_STREAMS": str(self.graph_instances),
            "INFERENCE_NUM_THREADS": str(self.graph_instances * self.graph_threads),
        }

    @property
    def graph_batch(self) -> int | None:
        """The preferred batch size of a graph; None takes everything that waits in the queue.

        OpenVINO runs each request by itself: compiled for one image it is as fast as with two.
        """
        return CPU_GRAPH_BATCH if self.is_cpu and self.engine == "onnxruntime" else None

    @property
    def max_queue_size(self) -> int:
        """Requests that may wait for preprocessing, or for a graph that a client calls directly."""
        return self.queue or (CPU_QUEUE if self.is_cpu else GPU_QUEUE)

    @property
    def credit_limit(self) -> int:
        """Decoded images of each preprocessing worker that may wait for a graph or be in it."""
        return CPU_CREDITS if self.is_cpu else GPU_CREDITS

    def __str__(self) -> str:
        if not self.is_cpu:
            used = ["TensorRT"] * (self.engine == "tensorrt")
            used += ["preprocessing"] * (self.preprocess == "gpu")
            on_it = f" with {', '.join(used)}" if used else ""
            return f"a GPU{on_it} and {self.cores} cores"
        return f"{self.goal} on {self.cores} CPU cores"
