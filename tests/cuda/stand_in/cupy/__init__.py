"""A stand-in for CuPy: see tests/cuda."""

import ctypes
import hashlib
import importlib
import os
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from . import dlpack

nvimgcodec: Any = importlib.import_module("nvidia.nvimgcodec")  # it has no types
WRAPPER = Path(__file__).parents[1] / "resize_on_cpu.cpp"
# Without -ffp-contract=off, some CPUs would compute fused multiply-adds.
COMPILE = ("g++", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-shared", "-fPIC")
OPTIONS = ("--std=c++14", "--fmad=false")


class Array:
    """An array that is not one of NumPy."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self._values = values
        self.shape, self.data = values.shape, SimpleNamespace(ptr=values.ctypes.data)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, part: slice) -> "Array":
        return Array(self._values[part])

    def set(self, values: npt.NDArray[Any]) -> None:
        """Copy from the host; CuPy refuses other shapes and types."""
        assert (values.shape, values.dtype) == (self._values.shape, self._values.dtype)
        self._values[...] = values

    def get(self) -> npt.NDArray[Any]:
        """Copy to the host."""
        return self._values.copy()

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CPU

    def __dlpack__(self, stream: object = None) -> object:
        return dlpack.capsule(self._values)


def empty(shape: int | tuple[int, ...], dtype: Any) -> Array:
    """Allocate memory with arbitrary content, to show what is not written."""
    return Array(np.full(shape, 77, dtype))


def asnumpy(array: Array) -> npt.NDArray[Any]:
    return array.get()


class RawModule:
    """Kernels compiled by g++, once for each version of their source."""

    def __init__(self, code: str, options: tuple[str, ...]) -> None:
        assert options == OPTIONS
        digest = hashlib.sha256(code.encode() + WRAPPER.read_bytes()).hexdigest()
        library = Path(tempfile.gettempdir(), f"resize-{os.getuid()}-{digest[:16]}.so")
        if not library.exists():
            with tempfile.TemporaryDirectory(dir=library.parent) as folder:
                source, made = Path(folder, "resize.cu"), Path(folder, "made.so")
                source.write_text(code, "utf-8")
                macro = f'-DSOURCE="{source}"'
                subprocess.run([*COMPILE, macro, WRAPPER, "-o", made], check=True)
                made.replace(library)
        self._library = ctypes.CDLL(str(library))

    def get_function(self, name: str) -> Callable[..., None]:
        function = self._library[f"launch_{name}"]

        def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: Any) -> None:
            triples = [(ctypes.c_uint * 3)(*each) for each in (grid, block)]
            assert max(grid[1:]) < 1 << 16  # CUDA's limit
            function(*triples, *map(_argument, arguments))

        return launch


def _argument(value: Any) -> Any:
    if isinstance(value, Array):
        return ctypes.c_void_p(value.data.ptr)
    kinds: dict[type, Any] = {np.int32: ctypes.c_int, np.float64: ctypes.c_double}
    return kinds[type(value)](value)


class _Stream(AbstractContextManager[None]):
    ptr = 0

    def __init__(self, *, non_blocking: bool) -> None:
        assert non_blocking

    def __exit__(self, *_: object) -> None:
        pass

    def synchronize(self) -> None:
        pass


cuda = SimpleNamespace(Device=lambda _number: SimpleNamespace(use=nullcontext), Stream=_Stream)


def get_default_memory_pool() -> Any:
    return SimpleNamespace(free_all_blocks=lambda: None)


class Decoder:
    """nvImageCodec's decoder on the CPU, whose pixels are those of Pillow."""

    def __init__(self, **options: Any) -> None:
        options |= {
            "device_id": nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY,
            "backends": [nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)],
        }
        self._decoder = _decoder(**options)

    def decode(self, files: list[bytes], **options: Any) -> list[Any]:
        decoded = self._decoder.decode(files, params=options["params"])
        return [image and _Image(image) for image in decoded]


class _Image:
    def __init__(self, image: Any) -> None:
        self.image = image  # owns the pixels
        self.__cuda_array_interface__ = image.__array_interface__


_decoder, nvimgcodec.Decoder = nvimgcodec.Decoder, Decoder
