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

nvimgcodec: Any = importlib.import_module("nvidia.nvimgcodec")  # it has no types
WRAPPER = Path(__file__).parents[1] / "resize_on_cpu.cpp"
# Without -ffp-contract=off, some CPUs would compute fused multiply-adds.
COMPILE = ("g++", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-shared", "-fPIC")
OPTIONS = ("--std=c++14", "--fmad=false")
# Tests set it to make the calls after it fail.
failure: Exception | None = None


class Array(npt.NDArray[Any]):
    """An array with the methods of CuPy's that NumPy's lack."""

    def set(self, values: npt.NDArray[Any]) -> None:
        """Copy from the host; CuPy refuses other shapes and types."""
        assert (values.shape, values.dtype) == (self.shape, self.dtype)
        self[...] = values


def empty(shape: int | tuple[int, ...], dtype: Any) -> Array:
    """Allocate memory with arbitrary content, to show what is not written."""
    if failure:
        raise failure
    return np.full(shape, 77, dtype).view(Array)


def asnumpy(array: Array) -> npt.NDArray[Any]:
    return np.array(array)


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
        return ctypes.c_void_p(value.ctypes.data)
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
