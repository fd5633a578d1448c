"""The GPU of a worker: memory, kernels and the decoder.

This is the only module that uses CuPy, which compiles the kernels with NVRTC, and nvImageCodec,
which decodes with nvJPEG.
"""

import ctypes
import importlib
import importlib.util
import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from .recipe import Size

KERNELS = Path(__file__).with_name("gpu_resize.cu")
# Pillow rounds each product, which fused multiply-adds do not.
COMPILER_OPTIONS = ("--std=c++14", "--fmad=false")
# CuPy opens NVRTC by this name. The wheels of NVIDIA have it in a folder that no loader searches.
NVRTC = "libnvrtc.so.13"
# libjpeg-turbo, which Pillow uses, interpolates subsampled colours; nvJPEG repeats them otherwise.
DECODER_OPTIONS = ":fancy_upsampling=1"
# Of each worker. They read headers, and decode Huffman codes where the GPU does not.
DECODER_THREADS = 4


class GpuError(Exception):
    """The GPU cannot be used; the message says why and what to do."""

    def __init__(self, reason: object) -> None:
        super().__init__(
            f"cannot decode on a GPU: {reason}; or build the repository with --preprocess cpu"
        )


class Device:
    """A GPU with the compiled kernels and a decoder.

    All work is done in one stream. Arrays are UINT8 unless said otherwise.

    Raises:
        GpuError: a library or the GPU is missing, or the kernels do not compile.
    """

    def __init__(self, number: int) -> None:
        self._cupy, self._codec = _libraries()
        try:
            self._cupy.cuda.Device(number).use()
            self.stream = self._cupy.cuda.Stream(non_blocking=True)
            self._module = self._cupy.RawModule(
                code=KERNELS.read_text("utf-8"), options=COMPILER_OPTIONS
            )
            self._decoder = self._codec.Decoder(
                device_id=number,
                max_num_cpu_threads=DECODER_THREADS,
                backends=[self._codec.Backend(kind) for kind in self._backends],
                options=DECODER_OPTIONS,
            )
        except Exception as error:
            raise GpuError(f"{error}; see what nvidia-smi says of GPU {number}") from error

    @cached_property
    def _backends(self) -> list[Any]:
        """The decoders, the fastest first; nvImageCodec asks the next one for what one refuses."""
        kinds = self._codec.BackendKind
        return [kinds.HW_GPU_ONLY, kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU]

    @cached_property
    def _parameters(self) -> Any:  # noqa: ANN401 - of nvImageCodec
        return self._codec.DecodeParams(
            apply_exif_orientation=False,
            color_spec=self._codec.ColorSpec.SRGB,
            sample_format=self._codec.SampleFormat.I_RGB,
        )

    def decode(self, files: list[bytes]) -> list[Any]:
        """Decode JPEGs to RGB as they are stored; None for those that cannot be decoded."""
        decoded: list[Any] = self._decoder.decode(
            files, params=self._parameters, cuda_stream=self.stream.ptr
        )
        return decoded

    def empty(self, *shape: int) -> Any:  # noqa: ANN401 - an array of CuPy
        """Allocate an array that is not filled."""
        with self.stream:
            return self._cupy.empty(shape, np.uint8)

    def upload(self, array: npt.NDArray[Any]) -> Any:  # noqa: ANN401 - an array of CuPy
        """Copy an array of any type to the GPU."""
        copy = self.empty(array.nbytes)
        self.write(copy, np.frombuffer(array.tobytes(), np.uint8))
        return copy

    def write(self, array: Any, values: npt.NDArray[np.uint8]) -> None:  # noqa: ANN401 - of CuPy
        """Copy values into an array of their shape."""
        with self.stream:
            array.set(values)

    def download(self, array: Any) -> npt.NDArray[np.uint8]:  # noqa: ANN401 - an array of CuPy
        """Copy an array from the GPU when all work before is done."""
        with self.stream:
            copied: npt.NDArray[np.uint8] = self._cupy.asnumpy(array)
            return copied

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        *arguments: Any,  # noqa: ANN401
    ) -> None:
        """Start a kernel; arguments are arrays, or numbers of NumPy types."""
        with self.stream:
            self._module.get_function(kernel)(grid, block, arguments)

    def synchronize(self) -> None:
        """Wait until all work is done."""
        self.stream.synchronize()

    def free(self) -> None:
        """Return unused memory, unless the GPU has failed for good."""
        with suppress(Exception):
            self._cupy.get_default_memory_pool().free_all_blocks()


def location(image: Any) -> tuple[int, Size, tuple[int, int]] | None:  # noqa: ANN401
    """Return the address of an image of nvImageCodec, its size, and the steps down and across.

    Returns:
        None if it does not have three channels of a byte.
    """
    interface = image.__cuda_array_interface__
    height, width, channels = interface["shape"]
    strides = interface.get("strides") or (width * channels, channels, 1)
    if (interface["typestr"], channels, strides[2]) != ("|u1", 3, 1):
        return None
    return interface["data"][0], (height, width), (strides[0], strides[1])


def _libraries() -> tuple[ModuleType, ModuleType]:
    # Compiled kernels are not written to the home folder, which a server may not have.
    os.environ.setdefault("CUPY_CACHE_IN_MEMORY", "1")
    # nvImageCodec would log several lines for each file that it cannot decode.
    os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")
    try:
        _load_nvrtc()
        return importlib.import_module("cupy"), importlib.import_module("nvidia.nvimgcodec")
    except ImportError as error:
        raise GpuError(
            f"{error}; install cupy-cuda13x and nvidia-nvimgcodec-cu13[nvjpeg]"
        ) from error


def _load_nvrtc() -> None:
    """Load NVRTC from its wheel, unless the loader finds it or CuPy has another one."""
    with suppress(OSError):
        ctypes.CDLL(NVRTC)
        return
    package = importlib.util.find_spec("nvidia")
    folders = package.submodule_search_locations if package else None
    for file in (Path(folder, "cu13", "lib", NVRTC) for folder in folders or ()):
        with suppress(OSError):
            ctypes.CDLL(str(file))
