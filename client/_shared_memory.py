"""Passes images to a server on the same machine in system shared memory.

A region belongs to one request at a time, and later requests reuse it. No file stays in /dev/shm:
if the client is killed, Python's resource tracker, a separate process, unlinks its regions, and
the next client unregisters them from the server.
"""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tenacity import AsyncRetrying, retry_if_exception_message, stop_after_delay, wait_fixed
from tritonclient.utils import shared_memory

from ._exceptions import ClientError, InvalidRequest

PREFIX = "triton-imagenet-"
DEV_SHM = Path("/dev/shm")  # noqa: S108 - where Linux keeps it
MIN_BYTES = 1 << 16

# The server finishes a cancelled request and holds its region until then.
IN_USE_SECONDS = 10
IN_USE_POLL_SECONDS = 0.02


@dataclass(eq=False)
class Region:
    """A piece of shared memory, with the same name in /dev/shm and on the server.

    A `stale` region cannot be reused, because the server may read it or may not know it any more.
    `release` is the task that unregisters and unlinks it.
    """

    size: int
    stale: bool = False
    release: asyncio.Task[None] | None = None
    name: str = field(default_factory=lambda: PREFIX + secrets.token_hex(8))

    def __post_init__(self) -> None:
        """Create the region."""
        self._handle = shared_memory.create_shared_memory_region(
            self.name, self.name, self.size, create_only=True
        )

    def write(self, images: Sequence[bytes]) -> None:
        """Write Triton's BYTES: for each image its length, 4 bytes little-endian, and its data."""
        parts: list[npt.NDArray[Any]] = []
        for image in images:
            parts += [np.array([len(image)], "<u4"), np.frombuffer(image, np.uint8)]
        shared_memory.set_shared_memory_region(self._handle, parts)

    def unlink(self) -> None:
        """Remove the region from /dev/shm."""
        shared_memory.destroy_shared_memory_region(self._handle)


class Regions:
    """The regions of one server; `call` calls a method of tritonclient's client by name."""

    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self._call = call
        self._all: set[Region] = set()
        self._free: list[Region] = []
        self._releasing: set[asyncio.Task[None]] = set()
        self._cleaned_up = False

    @asynccontextmanager
    async def holding(self, images: Sequence[bytes]) -> AsyncIterator[tuple[str, int]]:
        """Write the images into a region of the request's own; yield its name and their bytes.

        Raises:
            ClientError: the server does not accept it, or no shared memory is left.
        """
        size = sum(4 + len(image) for image in images)
        region = await self._take(size)
        try:
            region.write(images)
            yield region.name, size
        except asyncio.CancelledError:
            region.stale = True  # the server may be reading it
            raise
        finally:
            self._put_back(region)

    def forget(self) -> None:
        """Stop using all regions, because a restarted server does not know them."""
        self._cleaned_up = False
        for region in self._all:
            region.stale = True
        while self._free:
            self._release(self._free.pop())

    async def close(self) -> None:
        """Unregister and unlink all regions."""
        for region in [*self._all]:
            self._release(region)
        await asyncio.gather(*self._releasing)

    async def _take(self, size: int) -> Region:
        if fitting := [each for each in self._free if each.size >= size]:
            region = min(fitting, key=lambda each: each.size)
            self._free.remove(region)
            return region
        if self._free:  # all too small: replace one, so that there are never more than requests
            await asyncio.shield(self._release(self._free.pop()))
        return await self._create(max(MIN_BYTES, 1 << (size - 1).bit_length()))

    async def _create(self, size: int) -> Region:
        if not self._cleaned_up:
            self._cleaned_up = True
            await self._clean_up()
        region = _new_region(size)
        self._all.add(region)
        try:
            await self._call("register_system_shared_memory", region.name, f"/{region.name}", size)
        except BaseException:
            self._release(region)
            raise
        return region

    def _put_back(self, region: Region) -> None:
        if region.stale:
            self._release(region)
        else:
            self._free.append(region)

    def _release(self, region: Region) -> asyncio.Task[None]:
        """Start to unregister and unlink a region; the task waits until the server has read it."""
        if region.release is None:
            self._all.remove(region)
            region.release = asyncio.create_task(self._unregister(region))
            self._releasing.add(region.release)
            region.release.add_done_callback(self._releasing.discard)
        return region.release

    async def _unregister(self, region: Region) -> None:
        unregistering = AsyncRetrying(
            retry=retry_if_exception_message(match=".*currently in use"),
            wait=wait_fixed(IN_USE_POLL_SECONDS),
            stop=stop_after_delay(IN_USE_SECONDS),
            reraise=True,
        )
        try:
            with suppress(ClientError):
                await unregistering(self._call, "unregister_system_shared_memory", region.name)
        finally:
            region.unlink()

    async def _clean_up(self) -> None:
        """Unregister the regions of killed clients, whose files are gone."""
        status = await self._call("get_system_shared_memory_status")
        known = status.get("regions", {}) if isinstance(status, dict) else status
        names = known if isinstance(known, dict) else [region["name"] for region in known]
        for name in names:
            if name.startswith(PREFIX) and not (DEV_SHM / name).exists():
                await self._call("unregister_system_shared_memory", name)


def _new_region(size: int) -> Region:
    # Writing to memory beyond the limit of /dev/shm would kill the process.
    if shutil.disk_usage(DEV_SHM).free < size:
        raise InvalidRequest(f"{DEV_SHM} has no room for {size} bytes: increase its size")
    try:
        return Region(size)
    except shared_memory.SharedMemoryException as error:
        raise InvalidRequest(f"cannot create {size} bytes of shared memory: {error}") from error
