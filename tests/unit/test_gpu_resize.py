"""The kernels of the preprocessing step: on a GPU, or compiled for the CPU (see tests/cuda)."""

import ctypes
import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from scripts.repository.steps.preprocess import fitting
from scripts.repository.steps.preprocess.gpu_batches import OnGpu
from scripts.repository.steps.preprocess.gpu_device import COMPILER_OPTIONS, KERNELS, NVRTC, Device
from scripts.repository.steps.preprocess.gpu_pictures import FILTERS, Source
from scripts.repository.steps.preprocess.limits import Limits
from scripts.repository.steps.preprocess.preprocessing import OnCpu
from scripts.repository.steps.preprocess.recipe import Recipe
from tests import cuda

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)  # from Turing to Blackwell
ADDED_BY_CUPY = ("-ftz=true", "--device-as-default-execution-space")
RECIPES = {
    "shorter": Recipe((40, 40), (32, 32)),
    "shorter, two sides": Recipe((40, 56), (32, 48), rounding="torchvision"),
    "squash": Recipe((48, 36), (32, 32), mode="squash"),
    "letterbox": Recipe((32, 24), (36, 24), mode="letterbox", fill=(1, 200, 30)),
    "enlarged": Recipe((400, 400), (64, 64), rounding="transformers"),
}
SIZES = [(1, 1), (1, 300), (300, 1), (33, 21), (97, 1000), (40, 40), (256, 171), (31, 32)]

Pixels = npt.NDArray[np.uint8]
Stored = tuple[Pixels, int]  # an image and its EXIF orientation


@pytest.fixture(scope="module")
def device() -> Device:
    return Device(0)


def resized(device: Device, images: Sequence[Stored], recipe: Recipe, crops: int) -> Pixels:
    """Make the pictures of images that are in the GPU's memory, with rows that are padded."""
    kept, sources = [], {}
    for index, (pixels, orientation) in enumerate(images):
        height, width, _ = pixels.shape
        array = device.upload(np.pad(pixels, ((0, 0), (0, 5), (0, 0))))
        kept.append(array)
        sources[index] = Source(array.data.ptr, (height, width), (3 * (width + 5), 3), orientation)
    on_gpu = OnGpu(OnCpu(recipe, Limits(), crops), device, pytest.fail)
    made = device.empty(len(images) * crops, *on_gpu.on_cpu.shape)
    on_gpu.resize(sources, made)
    return device.download(made)


def of_pillow(images: Sequence[Stored], recipe: Recipe, crops: int) -> Pixels:
    """Make the same pictures with Pillow."""
    exact = replace(recipe, decoding="exact", colour="rgb")
    made: list[Image.Image] = []
    for pixels, orientation in images:
        size = pixels.shape[0], pixels.shape[1]
        decoded = fitting.Decoded(Image.fromarray(pixels), size, size, orientation)
        made += fitting.pictures(decoded, exact, crops)
    if recipe.channels == 1:
        made = [picture.convert("L") for picture in made]
    stacked: Pixels = np.stack(list(map(np.asarray, made)))
    return stacked.reshape(-1, *recipe.crop, recipe.channels)


def noise(sizes: Sequence[tuple[int, int]], seed: int = 0) -> list[Stored]:
    """Images of noise, each in another orientation."""
    rng = np.random.default_rng(seed)
    return [
        (rng.integers(0, 256, (*size, 3), np.uint8), number % 8 + 1)
        for number, size in enumerate(sizes, seed)
    ]


@cuda.needed
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("name", RECIPES)
def test_pictures_are_those_of_pillow_bit_by_bit(
    device: Device, name: str, interpolation: str
) -> None:
    recipe = replace(RECIPES[name], interpolation=interpolation)
    rng = np.random.default_rng(0)
    images = noise([*SIZES, *rng.integers(1, 400, (8, 2)).tolist()])
    expected = of_pillow(images, recipe, 1)
    np.testing.assert_array_equal(resized(device, images, recipe, 1), expected)
    assert len({picture.tobytes() for picture in expected}) > len(images) / 2


@cuda.needed
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pictures_are_those_of_pillow(device: Device, orientation: int) -> None:
    images = [(pixels, orientation) for pixels, _ in noise([(60, 90), (90, 60), (200, 47)])]
    expected = of_pillow(images, Recipe(), 1)
    np.testing.assert_array_equal(resized(device, images, Recipe(), 1), expected)


@cuda.needed
def test_ten_crops_are_those_of_pillow(device: Device) -> None:
    images, recipe = noise([(101, 60), (60, 101), (45, 77)], seed=3), RECIPES["shorter"]
    expected = of_pillow(images, recipe, 10)
    np.testing.assert_array_equal(resized(device, images, recipe, 10), expected)
    assert len({picture.tobytes() for picture in expected}) == 30


@cuda.needed
@pytest.mark.parametrize("name", ["shorter", "letterbox"])
def test_grey_pictures_are_those_of_pillow(device: Device, name: str) -> None:
    recipe = replace(RECIPES[name], colour="grey", mean=(0.5,), std=(0.5,))
    images = noise([(50, 80), (80, 50)])
    expected = of_pillow(images, recipe, 1)
    np.testing.assert_array_equal(resized(device, images, recipe, 1), expected)


@cuda.needed
def test_the_longest_side_is_resized(device: Device) -> None:
    images, recipe = noise([(1, 65_535), (65_535, 2)], seed=1), RECIPES["squash"]
    expected = of_pillow(images, recipe, 1)
    np.testing.assert_array_equal(resized(device, images, recipe, 1), expected)


@cuda.needed
def test_only_images_whose_last_row_is_grey_may_be_incomplete(device: Device) -> None:
    images = noise([(9, 300), (5, 1), (6, 40), (7, 200)])
    for number in (0, 1):
        images[number][0][-1] = 128
    images[2][0][:-1] = 128
    images[3][0][-1] = 128
    images[3][0][-1, -1, 2] = 127
    kept = [device.upload(pixels) for pixels, _ in images]
    sources = {
        number: Source(
            array.data.ptr,
            (pixels.shape[0], pixels.shape[1]),
            (3 * pixels.shape[1], 3),
            1,
        )
        for number, (array, (pixels, _)) in enumerate(zip(kept, images, strict=True))
    }
    on_gpu = OnGpu(OnCpu(Recipe(), Limits(), 1), device, pytest.fail)
    complete = on_gpu.resize(sources, device.empty(4, *on_gpu.on_cpu.shape))
    assert complete == [False, False, True, True]


@pytest.fixture(scope="module")
def nvrtc() -> Any:
    """The compiler of the kernels, from NVIDIA's wheel."""
    package = importlib.util.find_spec("nvidia")
    folders = package.submodule_search_locations if package else None
    files = [Path(folder, "cu13", "lib", NVRTC) for folder in folders or ()]
    found = next((file for file in files if file.exists()), None)
    if not found:
        pytest.skip("needs nvidia-cuda-nvrtc")
    return ctypes.CDLL(str(found))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_kernels_compile_for_every_gpu_without_a_warning(nvrtc: Any, architecture: int) -> None:
    program, length = ctypes.c_void_p(), ctypes.c_size_t()
    source = KERNELS.read_bytes()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None)
    options = [*COMPILER_OPTIONS, *ADDED_BY_CUPY, f"-arch=sm_{architecture}"]
    encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = nvrtc.nvrtcCompileProgram(program, len(options), encoded)
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(length))
    log = ctypes.create_string_buffer(length.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert (status, log.value.decode()) == (0, "")
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(length))
    assert length.value > 1000
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
