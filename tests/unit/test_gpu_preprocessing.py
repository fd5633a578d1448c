"""Preprocessing on a GPU against that on the CPU: the same pictures, and the same errors.

Without a GPU, a stand-in for CUDA is used, which decodes with libjpeg-turbo: see tests/cuda.
"""

import base64
import importlib
import io
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from client import SAMPLE
from scripts.repository.steps.preprocess import (
    base64_text,
    containers,
    cost,
    gpu_batches,
    gpu_device,
    gpu_jpeg,
)
from scripts.repository.steps.preprocess.errors import ImageError
from scripts.repository.steps.preprocess.gpu_batches import OnGpu
from scripts.repository.steps.preprocess.gpu_device import GpuError
from scripts.repository.steps.preprocess.imaging import load
from scripts.repository.steps.preprocess.limits import Limits
from scripts.repository.steps.preprocess.preprocessing import OnCpu, Result
from scripts.repository.steps.preprocess.recipe import Recipe
from tests import bombs, cuda, images, reference
from tests.fuzz import mutations
from tests.images import encode, photo

pytestmark = cuda.needed

JPEG = SAMPLE.read_bytes()
SMALL = Recipe((40, 40), (32, 32))
# nvJPEG rounds otherwise than libjpeg-turbo. The limit is an estimate, as no GPU has run it.
TOLERANCE = 8 if cuda.IS_REAL else 0


def saved(image: Image.Image, **options: Any) -> bytes:
    return encode(image, "JPEG", **options)


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def adobe(transform: int) -> bytes:
    """A segment as Adobe's programs write it, which tells the kind of components."""
    return bombs.segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


def numbered(first: int, second: int, third: int) -> bytes:
    """The sample without a JFIF segment, and with other numbers of its components."""
    data = bytearray(saved(photo(48, 40), subsampling=0))
    data[2:20] = b""
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    for place, number in enumerate((first, second, third)):
        data[frame + 10 + 3 * place] = data[scan + 5 + 2 * place] = number
    return bytes(data)


def with_halved_rows() -> bytes:
    """A JPEG of 4:4:0, which Pillow does not write: a scrambled one of 4:2:2."""
    data = bytearray(saved(photo(160, 96), subsampling="4:2:2"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = data[frame + 7 : frame + 9] + data[frame + 5 : frame + 7]
    assert data[frame + 11] == 0x21
    data[frame + 11] = 0x12
    return bytes(data)


def with_depth(depth: int) -> bytes:
    data = bytearray(JPEG)
    data[data.index(b"\xff\xc0") + 4] = depth
    return bytes(data)


def with_frame(code: int) -> bytes:
    return JPEG.replace(b"\xff\xc0", bytes([0xFF, code]), 1)


ON_GPU: dict[str, bytes] = {
    "the sample": JPEG,
    "4:4:4": saved(photo(), subsampling="4:4:4"),
    "4:2:2": saved(photo(451, 299), subsampling="4:2:2"),
    "4:2:0": saved(photo(450, 301), subsampling="4:2:0"),
    "4:1:1": saved(photo(), subsampling="4:1:1"),
    "4:4:0": with_halved_rows(),
    "grey": saved(photo().convert("L")),
    "progressive": saved(photo(), progressive=True),
    "progressive, grey": saved(photo().convert("L"), progressive=True),
    "optimised": saved(photo(), optimize=True),
    "restart markers": saved(photo(), restart_marker_blocks=3),
    "lowest quality": saved(photo(), quality=1),
    "highest quality": saved(photo(), quality=100),
    "one pixel": saved(photo(1, 1)),
    "wide": saved(photo(1500, 7)),
    "large": saved(photo(1803, 1202)),
    "base64": base64.b64encode(JPEG),
    "data URL": b"data:image/jpeg;base64," + base64.b64encode(JPEG),
    "followed by zeros": JPEG + bytes(100),
    "followed by another": JPEG + saved(photo(20, 20)) + b"end",
    "Adobe's YCbCr": JPEG[:2] + adobe(1) + JPEG[2:],
    **{f"orientation {each}": saved(photo(), exif=exif(each)) for each in range(1, 9)},
}
ON_CPU: dict[str, bytes] = {
    **{each: encode(photo(), each) for each in images.FORMATS if each != "JPEG"},
    "CMYK": saved(photo().convert("CMYK")),
    "Adobe's RGB": JPEG[:2] + adobe(0) + JPEG[2:],
    "components R, G, B": numbered(*b"RGB"),
    "components from 0": numbered(0, 1, 2),
    "4:2:0 of chroma": bombs.jpeg(64, 64, components=3).replace(b"\2\x11\0", b"\2\x22\0", 1),
    "12 bits": with_depth(12),
    "extended": with_frame(0xC1),
    "lossless": with_frame(0xC3),
    "arithmetic coding": with_frame(0xC9),
    "scans of a component each": bombs.jpeg(64, 64).replace(
        b"\xff\xda\0\x0c\3", b"\xff\xda\0\x0c\1"
    ),
    "no end marker": JPEG[:-2],
    "half an end marker": JPEG[:-1],
    "progressive, no end marker": saved(photo(), progressive=True)[:-2],
    "a marker in the scan": JPEG[:-500] + b"\xff\xc4" + JPEG[-500:],
    "half": JPEG[: len(JPEG) // 2],
    "half with an end marker": JPEG[: len(JPEG) // 2] + b"\xff\xd9",
    "grey at its end": saved(Image.new("RGB", (64, 64), (128, 128, 128))),
    "too many pixels for a GPU": bombs.jpeg(6400, 5001),
    "too many pixels": bombs.jpeg(10_001, 10_000),
    "too long": bombs.jpeg(65_535, 65_535),
    "invalid base64": base64.b64encode(JPEG)[:400] + b"!" * 8,
    "SOI": b"\xff\xd8",
    "no frame": JPEG.replace(b"\xff\xc0", b"\xff\xe5", 1),
    **images.BROKEN,
}
# Those that reach the GPU and do not come back as complete pictures.
DOUBTED = {"half with an end marker", "grey at its end"}


@pytest.fixture(scope="module")
def gpu() -> OnGpu:
    return start()


def start(
    recipe: Recipe = SMALL, crops: int = 1, warn: Callable[[str], None] = pytest.fail
) -> OnGpu:
    return gpu_batches.start(OnCpu(recipe, Limits(), crops), 0, warn)


def downloaded(on_gpu: OnGpu, result: Result) -> Result:
    """Copy pixels from the GPU, to compare them; errors are returned as they are."""
    assert not isinstance(result, np.ndarray)
    return result if isinstance(result, Exception) else on_gpu.device.download(result)


def exact(on_gpu: OnGpu) -> OnCpu:
    """What the GPU computes of JPEGs, by Pillow."""
    return replace(on_gpu.on_cpu, recipe=replace(on_gpu.on_cpu.recipe, decoding="exact"))


def assert_equal(result: Result, expected: Result, tolerance: int = 0) -> None:
    if isinstance(expected, Exception):
        assert (type(result), str(result)) == (type(expected), str(expected))
    else:
        difference = np.abs(result.astype(int) - expected)
        assert result.shape == expected.shape
        assert difference.max() <= tolerance


@pytest.mark.parametrize("name", ON_GPU)
def test_usual_jpegs_are_decoded_on_the_gpu(
    gpu: OnGpu, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnCpu, "pictures", lambda *_: pytest.fail("decoded on the CPU"))
    (result,) = gpu([[ON_GPU[name]]])
    monkeypatch.undo()
    (expected,) = exact(gpu)([[ON_GPU[name]]])
    assert_equal(downloaded(gpu, result), expected, TOLERANCE)


@pytest.mark.parametrize("name", ON_CPU)
def test_other_files_have_the_pixels_or_the_error_of_the_cpu(gpu: OnGpu, name: str) -> None:
    data = ON_CPU[name]
    assert (gpu_jpeg.read(data, gpu.on_cpu) is not None) == (name in DOUBTED)
    (result,), (expected,) = gpu([[data]]), gpu.on_cpu([[data]])
    assert_equal(downloaded(gpu, result), expected)


@pytest.mark.parametrize("name", [name for name in bombs.BOMBS if name.startswith("JPEG")])
def test_costly_images_are_left_to_the_cpu(gpu: OnGpu, name: str) -> None:
    assert gpu_jpeg.read(bombs.BOMBS[name](), gpu.on_cpu) is None


@pytest.mark.parametrize(
    "limits", [Limits(max_bytes=9000), Limits(max_side=450), Limits(max_seconds=1e-4)]
)
def test_limits_are_those_of_the_cpu(limits: Limits) -> None:
    on_gpu = gpu_batches.start(OnCpu(SMALL, limits, 1), 0, pytest.fail)
    (result,), (expected,) = on_gpu([[JPEG]]), on_gpu.on_cpu([[JPEG]])
    assert isinstance(expected, ImageError)
    assert_equal(result, expected)


def test_requests_are_made_together_and_an_error_fails_only_its_own(gpu: OnGpu) -> None:
    half, png, text = ON_CPU["half"], ON_CPU["PNG"], b"text"
    progressive, turned = ON_GPU["progressive"], ON_GPU["orientation 6"]
    requests = [[JPEG], [png, JPEG], [JPEG, half, text], [turned, progressive, png], [text], [JPEG]]
    results = [downloaded(gpu, result) for result in gpu(requests)]
    on_cpu = gpu.on_cpu(requests)
    assert [str(each) for each in results if isinstance(each, Exception)] == [
        "IMAGE[1]: broken image: the file ends before the picture is complete",
        "IMAGE[0]: not an image (4 bytes); send JPEG, PNG, WEBP, BMP or GIF, in JSON as base64",
    ]
    for result, expected in zip(results, on_cpu, strict=True):
        assert_equal(result, expected, 2 + TOLERANCE)  # of the CPU's fast decoding
    assert_equal(results[-1], results[0])


@pytest.mark.parametrize(
    ("recipe", "crops"),
    [
        (SMALL, 10),
        (replace(SMALL, colour="grey", mean=(0.5,), std=(0.5,), interpolation="lanczos"), 10),
        (Recipe((32, 24), (36, 24), mode="letterbox", fill=(9, 8, 7), interpolation="bicubic"), 1),
        (replace(SMALL, colour="bgr", mode="squash"), 1),
    ],
)
def test_recipes_and_crops_are_those_of_the_cpu(recipe: Recipe, crops: int) -> None:
    on_gpu = start(recipe, crops)
    requests = [[JPEG], [ON_GPU["orientation 5"]], [encode(photo(90, 60))]]
    results = on_gpu(requests)
    for result, expected in zip(results, on_gpu.on_cpu(requests), strict=True):
        assert_equal(downloaded(on_gpu, result), expected, 3 + TOLERANCE)
        assert result.shape == (crops, *recipe.crop, recipe.channels)


def test_a_batch_of_many_pixels_is_decoded_in_parts(
    gpu: OnGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[int] = []
    decode = gpu.device.decode

    def counted(files: list[bytes]) -> list[Any]:
        parts.append(len(files))
        return decode(files)

    monkeypatch.setattr(gpu.device, "decode", counted)
    monkeypatch.setattr(gpu_batches, "BATCH_PIXELS", 2 * 451 * 300)
    (result,) = gpu([[JPEG] * 5])
    assert parts == [2, 2, 1]
    assert len({picture.tobytes() for picture in downloaded(gpu, result)}) == 1


def test_a_file_that_nvimagecodec_refuses_is_decoded_on_the_cpu(
    gpu: OnGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = gpu.device.decode
    monkeypatch.setattr(gpu.device, "decode", lambda files: [None, *decode(files)[1:]])
    requests = [[JPEG], [ON_GPU["4:2:2"]]]
    first, second = (downloaded(gpu, result) for result in gpu(requests))
    assert_equal(first, gpu.on_cpu(requests)[0])
    assert_equal(second, exact(gpu)(requests)[1], TOLERANCE)


def test_if_nothing_is_decoded_on_the_gpu_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    on_gpu = start(warn=lines.append)
    monkeypatch.setattr(on_gpu.device, "decode", lambda files: [None] * len(files))
    on_gpu([[JPEG]])
    assert lines == []
    for _ in range(2):
        on_gpu([[JPEG], [JPEG]])
    assert lines == ["images are decoded on the CPU, since nvImageCodec decoded none of a batch"]


@pytest.mark.parametrize("failing", ["empty", "decode", "launch", "synchronize"])
def test_if_the_gpu_fails_the_cpu_decodes_and_the_log_says_so_once(
    failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    on_gpu = start(warn=lines.append)

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    requests = [[JPEG], [b"text"], [encode(photo())]]
    with monkeypatch.context() as patch:
        patch.setattr(on_gpu.device, failing, fail)
        for _ in range(2):
            results = on_gpu(requests)
            for result, expected in zip(results, on_gpu.on_cpu(requests), strict=True):
                assert_equal(result, expected)
    assert lines == ["images are decoded on the CPU, since the GPU failed: out of memory"]
    (result,) = on_gpu([[JPEG]])
    assert_equal(downloaded(on_gpu, result), exact(on_gpu)([[JPEG]])[0], TOLERANCE)


def test_pixels_of_another_size_than_the_header_says_are_not_read(
    gpu: OnGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small,) = gpu.device.decode([saved(photo(20, 10))])
    decode = gpu.device.decode
    monkeypatch.setattr(gpu.device, "decode", lambda files: [small, *decode(files[1:])])
    requests = [[JPEG], [JPEG]]
    first, second = (downloaded(gpu, result) for result in gpu(requests))
    assert_equal(first, gpu.on_cpu(requests)[0])
    assert_equal(second, exact(gpu)(requests)[1], TOLERANCE)


def test_without_nvjpeg_the_step_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_device.Device, "decode", lambda _, files: [None] * len(files))
    with pytest.raises(
        GpuError, match=r"^cannot decode on a GPU: nvImageCodec decodes no JPEG on GPU"
    ):
        start()


def test_with_a_gpu_that_does_not_work_the_step_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no device")

    message = "^cannot decode on a GPU: no device; see what nvidia-smi says of GPU 0; or build the"
    cupy = importlib.import_module("cupy")
    for owner, name in ((gpu_device.Device, "decode"), (cupy, "RawModule")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(GpuError, match=message):
                start()


def test_without_a_library_the_step_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(GpuError, match=r"^cannot decode on a GPU: No module named 'cupy'; install"):
        start()


@pytest.mark.skipif(cuda.IS_REAL, reason="decoders differ in what they make of a broken file")
def test_changed_files_get_the_answer_of_the_cpu(gpu: OnGpu) -> None:
    rng = random.Random(7)  # noqa: S311
    files = [data for name, data in mutations.seeds().items() if "JPEG" in name]
    changed = [[mutations.mutated(rng.choice(files), rng)] for _ in range(400)]
    results = [downloaded(gpu, gpu([request])[0]) for request in changed]
    read = [gpu_jpeg.read(request[0], gpu.on_cpu) is not None for request in changed]
    assert 100 < sum(read) < 300
    is_error = [isinstance(result, Exception) for result in results]
    assert 100 < sum(is_error) < 300
    both = zip(results, gpu.on_cpu(changed), exact(gpu)(changed), strict=True)
    for result, on_cpu, expected in both:
        if isinstance(result, Exception):
            assert_equal(result, on_cpu)
        else:
            assert not isinstance(on_cpu, Exception)
            assert np.array_equal(result, on_cpu) or np.array_equal(result, expected)


def test_photographs_get_the_classes_of_the_reference(shared_assets: Path) -> None:
    on_gpu = start(Recipe())
    files = [file.read_bytes() for file in sorted((shared_assets / "photos").glob("*.jpg"))]
    (result,) = on_gpu([files])
    session = onnxruntime.InferenceSession(shared_assets / "squeezenet1.1.onnx")
    exactly = replace(Recipe(), decoding="exact")
    expected = np.stack([np.asarray(load(data, exactly)) for data in files])
    both: list[Any] = [downloaded(on_gpu, result), expected]
    ours, references = (
        reference.logits(session, list(map(reference.normalized, pictures.astype(np.int64))))
        for pictures in both
    )
    np.testing.assert_array_equal(ours.argmax(axis=-1), references.argmax(axis=-1))


@pytest.mark.parametrize("name", ON_GPU)
def test_the_estimated_cost_is_at_least_that_of_the_cpu(name: str) -> None:
    file = containers.strip(base64_text.file_content(ON_GPU[name]))
    with Image.open(io.BytesIO(file.data)) as image:
        size = image.height, image.width
        estimated = cost.of_opened(image, file, size)
    most = cost.most_of_jpeg(file, size)
    assert most.memory >= estimated.memory
    assert most.seconds >= estimated.seconds
