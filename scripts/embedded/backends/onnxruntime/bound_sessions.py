"""Sessions of onnxruntime on a device, in whose memory their inputs can already be.

With cuDNN 9, onnxruntime (since 1.20, and at least to 1.27) keeps one plan for each convolution,
that of its last input shape, and plans all convolutions again whenever the batch size changes:
`Conv::UpdateState` in its source, https://github.com/microsoft/onnxruntime/issues/23006. Therefore
each of some batch sizes has a session of its own, and a batch is filled up with zeros to the next
of these sizes.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime

Array = Any  # of NumPy, or of the device's module


@dataclass(frozen=True)
class Device:
    """Where sessions compute.

    Attributes:
        name: `cuda`, or `cpu` for tests.
        number: the number of the device.
        arrays: the module of arrays in the device's memory: CuPy, or NumPy for `cpu`. With None
            no input is there.
        synchronize: waits until copies between arrays in the device's memory are finished.
    """

    name: str
    number: int = 0
    arrays: ModuleType | None = None
    synchronize: Callable[[], None] = lambda: None

    def has(self, array: Array) -> bool:
        """Return whether an array is in the memory of such a device, not necessarily this one."""
        return self.arrays is not None and isinstance(array, self.arrays.ndarray)

    def take(self, array: Array) -> Array:
        """Copy an array to this device's memory, unless it is there."""
        assert self.arrays  # noqa: S101 - only called if one of the arrays is there
        if not self.has(array):
            return self.arrays.asarray(array)
        return array if array.__dlpack_device__()[1] == self.number else array.copy()


class BoundSessions:
    """Runs batches in a session for batches of their size.

    Args:
        create: creates a session.
        device: where the sessions compute.
        inputs: the names of the inputs.
        outputs: the names of the outputs.
        sizes: the sizes of batches; if empty, one session runs batches of any size.
    """

    def __init__(
        self,
        create: Callable[[], onnxruntime.InferenceSession],
        device: Device,
        inputs: Sequence[str],
        outputs: Sequence[str],
        sizes: Collection[int],
    ) -> None:
        self.device = device
        self.inputs = inputs
        self.outputs = outputs
        self.sessions = {size: create() for size in sizes or (0,)}

    def run(self, parts: Sequence[Sequence[Array]]) -> list[Array]:
        """Run one batch.

        Args:
            parts: for each input the arrays of which the batch consists, one below the other.

        Returns:
            For each output an array in the host's memory.
        """
        count = sum(map(len, parts[0]))
        size = min((size for size in self.sessions if size >= count), default=0)
        session = self.sessions[size]
        binding = session.io_binding()
        # Until the run has ended, something has to hold the arrays.
        bound = [
            self._bind(binding, name, arrays, size or count)
            for name, arrays in zip(self.inputs, parts, strict=True)
        ]
        for name in self.outputs:
            binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding)
        results: list[Array] = binding.copy_outputs_to_cpu()
        del bound
        return [result[:count] for result in results] if size > count else results

    def _bind(
        self, binding: onnxruntime.IOBinding, name: str, parts: Sequence[Array], rows: int
    ) -> Array:
        if not any(map(self.device.has, parts)):
            array = _stack(np, parts, rows)
            binding.bind_cpu_input(name, array)  # copies it to the device
            return array
        array = _stack(self.device.arrays, [self.device.take(part) for part in parts], rows)
        self.device.synchronize()
        binding.bind_input(
            name, self.device.name, self.device.number, array.dtype, array.shape, _pointer(array)
        )
        return array


def batch_sizes(config: dict[str, Any]) -> list[int]:
    """Return the batch sizes for which there are sessions; none if batches can have any size."""
    largest = int(config["max_batch_size"])
    is_text = any(tensor["data_type"] == "TYPE_STRING" for tensor in config["input"])
    if not largest or is_text:  # there are no zeros among texts
        return []
    warmed = (int(each["batch_size"]) for each in config.get("model_warmup", ()))
    return sorted({size for size in warmed if 0 < size < largest} | {largest})


def _stack(module: Any, parts: Sequence[Array], rows: int) -> Array:  # noqa: ANN401 - a module
    """Put arrays one below the other, and zeros below them.

    In CuPy these functions copy and clear memory; `concatenate` would compile a kernel first.
    """
    first = parts[0]
    if len(parts) == 1 and len(first) == rows:
        return first
    is_full = sum(map(len, parts)) == rows
    make = module.empty if is_full else module.zeros
    whole = make((rows, *first.shape[1:]), first.dtype)
    start = 0
    for part in parts:
        module.copyto(whole[start : start + len(part)], part)
        start += len(part)
    return whole


def _pointer(array: Array) -> int:
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return int(interface["data"][0])
