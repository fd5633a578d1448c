"""Makes the pixels of all requests that Triton hands over together on a GPU."""

import functools
import io
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from . import gpu_jpeg, gpu_pictures
from .errors import Busy, ImageError
from .gpu_device import Device, GpuError, location
from .gpu_jpeg import Jpeg
from .gpu_pictures import FILTERS, Source
from .preprocessing import Files, OnCpu, Result, at
from .resizing import SUPPORT

__all__ = ["GpuError", "OnGpu", "start"]

# Decoded at a time, so that the memory has a bound: 192 MB of pixels.
BATCH_PIXELS = 2 * gpu_jpeg.MAX_PIXELS
BLOCK = (32, 8, 1)  # threads, for kernels that make a pixel each
WEIGHTS_BLOCK = ROW_BLOCK = (128, 1, 1)
WARM_UP_SIDE = 64

Numbered = tuple[int, Jpeg]  # the index in the batch


def start(on_cpu: OnCpu, number: int, warn: Callable[[str], None]) -> "OnGpu":
    """Use the GPU of a number; the kernels are compiled and have run once.

    Raises:
        GpuError: it cannot be used.
    """
    on_gpu = OnGpu(on_cpu, Device(number), warn)
    noise = io.BytesIO()
    Image.effect_noise((WARM_UP_SIDE, WARM_UP_SIDE), 50).convert("RGB").save(noise, "JPEG")
    file = Jpeg(noise.getvalue(), (WARM_UP_SIDE, WARM_UP_SIDE), orientation=1)
    try:
        is_made = on_gpu.make([(0, file)], on_gpu.device.empty(on_cpu.crops, *on_cpu.shape))
    except Exception as error:
        raise GpuError(f"{error}; see what nvidia-smi says of GPU {number}") from error
    if not is_made:
        raise GpuError(
            f"nvImageCodec decodes no JPEG on GPU {number}; install nvidia-nvimgcodec-cu13[nvjpeg]"
        )
    return on_gpu


class OnGpu:
    """Decodes and resizes JPEGs on a GPU, and everything else on the CPU.

    If the GPU fails, the CPU does all, and `warn` gets one line.
    """

    def __init__(self, on_cpu: OnCpu, device: Device, warn: Callable[[str], None]) -> None:
        self.on_cpu = on_cpu
        self.device = device
        self.warn = functools.cache(warn)  # each line once

    def __call__(self, requests: Sequence[Files]) -> list[Result]:
        """Process requests together; an invalid image fails only its own."""
        try:
            return self.together(requests)
        except Exception as error:  # noqa: BLE001 - CuPy and nvImageCodec raise many kinds
            traceback.clear_frames(error.__traceback__)  # their variables refer to the GPU's memory
            self.device.free()
            self.warn(f"images are decoded on the CPU, since the GPU failed: {error}")
            return self.on_cpu(requests)

    def together(self, requests: Sequence[Files]) -> list[Result]:
        """Process requests; what the GPU raises is not caught."""
        files = [data for request in requests for data in request]
        crops = self.on_cpu.crops
        pixels = self.device.empty(len(files) * crops, *self.on_cpu.shape)
        read = ((index, gpu_jpeg.read(data, self.on_cpu)) for index, data in enumerate(files))
        jpegs = [(index, file) for index, file in read if file]
        done: set[int] = set()
        for batch in _batches(jpegs):
            done |= self.make(batch, pixels)
        errors: dict[int, ImageError | Busy] = {}
        for index, data in enumerate(files):
            if index in done:
                continue
            try:
                made = np.stack(self.on_cpu.pictures(data))
            except (ImageError, Busy) as error:
                errors[index] = error
            else:
                part = pixels[index * crops : (index + 1) * crops]
                self.device.write(part, made.reshape(part.shape))
        self.device.synchronize()
        return list(_results(requests, pixels, errors, crops))

    def make(self, batch: Sequence[Numbered], pixels: Any) -> set[int]:  # noqa: ANN401 - of CuPy
        """Make the pictures of images, and return the indices of those that are complete."""
        decoded = self.device.decode([file.data for _, file in batch])
        both = zip(decoded, batch, strict=True)
        found = {index: _source(image, file) for image, (index, file) in both if image is not None}
        sources = {index: source for index, source in found.items() if source}
        if not sources:
            if len(batch) > 1:
                self.warn(
                    "images are decoded on the CPU, since nvImageCodec decoded none of a batch"
                )
            return set()
        complete = self.resize(sources, pixels)
        del decoded  # the kernels have read the images
        return {index for index, is_complete in zip(sources, complete, strict=True) if is_complete}

    def resize(self, sources: dict[int, Source], pixels: Any) -> list[bool]:  # noqa: ANN401
        """Resize decoded images, and tell which of them do not end in grey."""
        device, recipe, crops = self.device, self.on_cpu.recipe, self.on_cpu.crops
        plan = gpu_pictures.plan(
            ((source, index * crops) for index, source in sources.items()), recipe, crops
        )
        count = len(plan.pictures)
        described = device.upload(plan.pictures)
        weights = device.empty(plan.weights * np.dtype(np.int32).itemsize)
        between = device.empty(plan.between)
        sides = _blocks(max(plan.columns, plan.lines), WEIGHTS_BLOCK[0])
        interpolation = np.int32(FILTERS[recipe.interpolation])
        support = np.float64(SUPPORT[recipe.interpolation])
        grid = (sides, count, 2)
        device.launch(
            "make_weights", grid, WEIGHTS_BLOCK, described, weights, interpolation, support
        )
        grid = (_blocks(plan.columns, BLOCK[0]), _blocks(plan.rows, BLOCK[1]), count)
        device.launch("resize_across", grid, BLOCK, described, weights, between)
        height, width, channels = map(np.int32, self.on_cpu.shape)
        grid = (_blocks(int(width), BLOCK[0]), _blocks(int(height), BLOCK[1]), count)
        fill = np.int32(int.from_bytes(bytes(recipe.fill), "little"))
        made = (described, weights, between, pixels)
        device.launch("resize_down", grid, BLOCK, *made, width, height, channels, fill)
        return self._have_colours(list(sources.values()))

    def _have_colours(self, sources: Sequence[Source]) -> list[bool]:
        """Tell for each image whether its last row is more than the grey of missing pixels."""
        rows = [
            (
                source.address + (source.size[0] - 1) * source.steps[0],
                source.size[1],
                source.steps[1],
            )
            for source in sources
        ]
        counts = self.device.upload(np.zeros(len(rows), np.int32))
        described = self.device.upload(np.array(rows, np.int64))
        grid = (len(rows), 1, 1)
        self.device.launch("count_colours", grid, ROW_BLOCK, described, counts)
        return [bool(count) for count in self.device.download(counts).view(np.int32)]


def _batches(jpegs: Iterable[Numbered]) -> Iterator[list[Numbered]]:
    """Divide images into batches of at most `BATCH_PIXELS`."""
    batch: list[Numbered] = []
    total = 0
    for index, file in jpegs:
        if batch and total + file.pixels > BATCH_PIXELS:
            yield batch
            batch, total = [], 0
        batch.append((index, file))
        total += file.pixels
    if batch:
        yield batch


def _source(image: Any, file: Jpeg) -> Source | None:  # noqa: ANN401 - of nvImageCodec
    """Find the pixels of an image, unless they are not those that the file's header tells of."""
    found = location(image)
    return Source(*found, file.orientation) if found and found[1] == file.size else None


def _results(
    requests: Sequence[Files],
    pixels: Any,  # noqa: ANN401 - an array of CuPy
    errors: dict[int, ImageError | Busy],
    crops: int,
) -> Iterator[Result]:
    start = 0
    for files in requests:
        end = start + len(files)
        failed = next((index for index in range(start, end) if index in errors), None)
        if failed is None:
            yield pixels[start * crops : end * crops]
        else:
            yield at(failed - start, errors[failed])
        start = end


def _blocks(count: int, size: int) -> int:
    return -(-count // size)
