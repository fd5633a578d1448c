"""Finds out what a process of the server can do with CUDA, and prints it as JSON.

Run as `python cuda_probe.py` with the environment of the server: so the libraries are looked for
where the server looks for them, and the calling process loads none of them.
"""

import ctypes
import importlib.util
import json
import os
import runpy
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

# The same modules are in each of these packages: the one that pip installed last has replaced them.
PACKAGES = {"onnxruntime", "onnxruntime-gpu"}
DRIVER = "libcuda.so.1"
# What onnxruntime loads when a session is created, beside what its provider is linked with.
CUDNN = "libcudnn.so.9"
NAME_BYTES = 256


def find() -> dict[str, Any]:
    """Return the fields of `gpu.Findings`."""
    return {**_driver(), **_onnxruntime()}


def _driver() -> dict[str, Any]:
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError as error:
        return {"driver_error": str(error)}
    version, count = ctypes.c_int(), ctypes.c_int()
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    driver.cuDriverGetVersion(ctypes.byref(version))
    return {
        "driver": _path(DRIVER),
        "driver_error": _describe(driver, code) if code else None,
        "driver_cuda": version.value,
        "gpus": [_name(driver, number) for number in range(count.value)],
    }


def _path(library: str) -> str:
    """Return the file of a library that this process has loaded, whose name can be longer."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.rpartition("/")[2].startswith(library.removesuffix(".1")):
            return line[line.index("/") :]
    return library


def _describe(driver: Any, code: int) -> str:  # noqa: ANN401 - a library has no type
    name, text = ctypes.c_char_p(), ctypes.c_char_p()
    driver.cuGetErrorName(code, ctypes.byref(name))
    driver.cuGetErrorString(code, ctypes.byref(text))
    known = [each.value.decode() for each in (name, text) if each.value]
    return ": ".join(known) or f"error {code}"


def _name(driver: Any, number: int) -> str:  # noqa: ANN401
    device, name = ctypes.c_int(), ctypes.create_string_buffer(NAME_BYTES)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, NAME_BYTES, device)
    return name.value.decode()


def _onnxruntime() -> dict[str, Any]:
    names = {each.metadata["Name"] for each in distributions()}
    found: dict[str, Any] = {"packages": sorted(PACKAGES & names)}
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        return found
    folder = Path(spec.submodule_search_locations[0], "capi")
    built = runpy.run_path(str(folder / "build_and_package_info.py"))
    if cuda := built.get("cuda_version"):
        found |= {"onnxruntime_cuda": cuda, "library_error": _load(folder)}
    return found


def _load(folder: Path) -> str | None:
    """Load onnxruntime's provider as onnxruntime does; return why that fails, if it does."""
    try:
        shared = folder / "libonnxruntime_providers_shared.so"
        ctypes.CDLL(str(shared), os.RTLD_NOW | os.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
        ctypes.CDLL(CUDNN)
    except OSError as error:
        return str(error)
    return None


if __name__ == "__main__":
    json.dump(find(), sys.stdout)
