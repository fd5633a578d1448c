"""Triton's memory on GPUs for the tensors between the steps of an ensemble."""

from collections.abc import Iterable

# By default a GPU has 64 MiB of it; an exhausted pool has given empty outputs
# (https://github.com/triton-inference-server/server/issues/8177).
POOL_BYTES = 512 << 20


def pool_options(gpus: Iterable[int]) -> list[str]:
    """Return the options for tritonserver, which ignores those for GPUs that it does not have."""
    return [f"--cuda-memory-pool-byte-size={number}:{POOL_BYTES}" for number in gpus]
