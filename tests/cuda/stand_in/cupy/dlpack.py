"""DLPack capsules of arrays, as CuPy makes them: https://dmlc.github.io/dlpack/latest/c_api.html.

NumPy's own end a Python backend model of Triton 24.10: they do not know the name that it gives to a
capsule that it has used.
"""

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

CPU = (1, 0)  # kind and number of the device
UINT8 = (1, 8, 1)  # unsigned integers, bits, lanes


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("dimensions", ctypes.c_int32),
        ("kind", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))

_new_capsule: Any = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_in_use: dict[int, Any] = {}  # what a capsule refers to, by the address of its tensor


def _delete(managed: Any) -> None:
    del _in_use[ctypes.addressof(managed.contents)]


_deleter = _Deleter(_delete)


def capsule(array: npt.NDArray[np.uint8]) -> object:
    """Make a capsule of a contiguous array."""
    assert array.flags.c_contiguous
    assert array.dtype == np.uint8
    shape = (ctypes.c_int64 * array.ndim)(*array.shape)
    device = (ctypes.c_int32 * 2)(*CPU)
    tensor = _Tensor(array.ctypes.data, device, array.ndim, *UINT8, shape, None, 0)
    managed = _Managed(tensor, None, _deleter)
    _in_use[ctypes.addressof(managed)] = (managed, shape, array)
    return _new_capsule(ctypes.addressof(managed), b"dltensor", None)
