"""A stand-in for CUDA: what the preprocessing step calls of CuPy, on a CPU.

`stand_in/cupy` has it, on NumPy arrays, with the step's kernels compiled by g++; it also lets
nvImageCodec decode on the CPU, with the pixels of Pillow. What a GPU computes cannot be seen with
it: how nvJPEG decodes, and whether the calls have the right streams. On a machine with a GPU and
CuPy, the tests use these instead.
"""

import ctypes
import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

STAND_IN = Path(__file__).with_name("stand_in")


def has_gpu() -> bool:
    """Tell whether this machine has a GPU's driver and CuPy."""
    if not importlib.util.find_spec("cupy"):
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


IS_REAL = has_gpu()
needed = pytest.mark.skipif(not (IS_REAL or shutil.which("g++")), reason="needs g++ or a GPU")

if not IS_REAL:
    sys.path.append(str(STAND_IN))
