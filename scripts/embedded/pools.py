"""Sizes the pools of shared memory through which Triton passes tensors to Python processes.

Each process has a pool in /dev/shm, which grows to the largest batch that the process has taken,
and never shrinks. When /dev/shm is full no pool can grow, so each starts with room for ordinary
requests: only larger ones can then fail.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from scripts.embedded.guard import SHARED_MEMORY
from scripts.embedded.view import read_config

MIB = 1 << 20
# Triton's default and minimum.
MIN_RESERVE = 1 * MIB
# A batch of four photographs of 3.5 MB, which the preprocessing step takes at once.
MAX_RESERVE = 16 * MIB
# All pools together, so that many small classifiers do not take the memory of the machine.
MAX_RESERVES = 1024 * MIB
# The default limit of an HTTP request in newer releases of Triton (--http-max-input-size).
LARGE_REQUEST = 64 * MIB


@dataclass(frozen=True)
class Pools:
    """The pools of a server.

    `processes` counts the processes of each backend, and `free` is in bytes.
    """

    processes: Counter[str]
    free: int

    @property
    def reserve(self) -> int:
        """The initial size of each pool in bytes; half of the free memory is left for growth."""
        share = min(MAX_RESERVES, self.free // 2) // max(self.processes.total(), 1)
        return max(MIN_RESERVE, min(MAX_RESERVE, share) // MIB * MIB)

    @property
    def options(self) -> list[str]:
        """The options for tritonserver; the backends in Python share those of `python`."""
        return [f"--backend-config=python,shm-default-byte-size={self.reserve}"]

    @property
    def warning(self) -> str | None:
        """A line for the operator if large requests can fail for lack of shared memory."""
        reserved = self.reserve * self.processes.total()
        needed = reserved + self.processes["python"] * LARGE_REQUEST
        if self.free >= needed:
            return None
        return (
            f"{SHARED_MEMORY} has {self.free // MIB} MiB free; with less than {needed // MIB} MiB, "
            f"requests of more than {self.reserve // MIB} MiB can fail"
        )


def pools_of(models: Path, *, gpus: int = 0) -> Pools:
    """Count the Python processes that a model repository needs, and the free shared memory.

    Instances that are not bound to the CPU or to certain GPUs are created for each of `gpus`.
    """
    processes: Counter[str] = Counter()
    for file in models.glob("*/config.pbtxt"):
        config = read_config(file)
        if config and config.backend:
            counts = [_instances(group, gpus) for group in config.instance_group]
            processes[config.backend] += sum(counts) or max(gpus, 1)
    status = os.statvfs(SHARED_MEMORY)
    return Pools(processes, status.f_bavail * status.f_frsize)


def _instances(group: pb.ModelInstanceGroup, gpus: int) -> int:
    on_cpu = group.kind == pb.ModelInstanceGroup.KIND_CPU
    places = 1 if on_cpu else len(group.gpus) or max(gpus, 1)
    return int(max(group.count, 1) * places)
