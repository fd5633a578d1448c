"""Images handed to a server on this machine by system shared memory.

A region belongs to one request at a time and is used again by later ones. Whatever becomes of the
client, no file stays in /dev/shm: Python's resource tracker, a process of its own, unlinks what a
killed one leaves. What a killed client had registered, the next client unregisters.
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

from client._exceptions import ClientError, InvalidRequest, ServerFailed

PREFIX = "triton-imagenet-"
DEV_SHM = Path("/dev/shm")  # noqa: S108 - where Linux shows it
SMALLEST = 1 << 16

# A request that nobody waits for any more goes on in the server, and holds its region.
IN_USE_SECONDS = 10
IN_USE_POLL_SECONDS = 0.02


@dataclass(eq=False)
class Region:
    """A piece of shared memory under the same name here, in /dev/shm and on the server.

    It is `stale` when the server may have forgotten it, and `ending` gives it back.
    """

    size: int
    stale: bool = False
    ending: asyncio.Task[None] | None = None
    name: str = field(default_factory=lambda: PREFIX + secrets.token_hex(8))

    def __post_init__(self) -> None:
        """Create it."""
        self._handle = shared_memory.create_shared_memory_region(
            self.name, self.name, self.size, create_only=True
        )

    def write(self, images: Sequence[bytes]) -> None:
        """Write images as Triton's BYTES: for each its length, 4 bytes little-endian, and it."""
        parts: list[npt.NDArray[Any]] = []
        for image in images:
            parts += [np.array([len(image)], "<u4"), np.frombuffer(image, np.uint8)]
        shared_memory.set_shared_memory_region(self._handle, parts)

    def unlink(self) -> None:
        """Give it back to the system."""
        shared_memory.destroy_shared_memory_region(self._handle)


class Regions:
    """The regions that one server knows; `ask` calls tritonclient's methods by name."""

    def __init__(self, ask: Callable[..., Awaitable[Any]]) -> None:
        self._ask = ask
        self._all: set[Region] = set()
        self._free: list[Region] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._has_tidied = False

    @asynccontextmanager
    async def holding(self, images: Sequence[bytes]) -> AsyncIterator[tuple[str, int]]:
        """Have the images in a region that is the request's own, and give its name and their size.

        Raises:
            ClientError: the server does not take it, for it is on another machine.
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
            self._release(region)

    def forget(self) -> None:
        """Use none of the regions any more: the server may be another than it was."""
        self._has_tidied = False
        for region in self._all:
            region.stale = True
        while self._free:
            self._end(self._free.pop())

    async def close(self) -> None:
        """Unregister and unlink all regions."""
        for region in [*self._all]:
            self._end(region)
        await asyncio.gather(*self._ending)

    async def _take(self, size: int) -> Region:
        if fitting := [each for each in self._free if each.size >= size]:
            region = min(fitting, key=lambda each: each.size)
            self._free.remove(region)
            return region
        if self._free:  # which are all too small; there is never a region more than requests
            await asyncio.shield(self._end(self._free.pop()))
        return await self._create(max(SMALLEST, 1 << (size - 1).bit_length()))

    async def _create(self, size: int) -> Region:
        if not self._has_tidied:
            self._has_tidied = True
            await self._tidy()
        region = _new_region(size)
        self._all.add(region)
        try:
            await self._ask("register_system_shared_memory", region.name, f"/{region.name}", size)
        except ServerFailed as error:
            self._end(region)
            hint = "shared memory is for a server on this machine"
            raise InvalidRequest(f"{error}; {hint}") from error
        except BaseException:
            self._end(region)
            raise
        return region

    def _release(self, region: Region) -> None:
        if region.stale:
            self._end(region)
        else:
            self._free.append(region)

    def _end(self, region: Region) -> asyncio.Task[None]:
        """Begin to give a region back, which waits for the server to have done with it."""
        if region.ending is None:
            self._all.remove(region)
            region.ending = asyncio.create_task(self._give_back(region))
            self._ending.add(region.ending)
            region.ending.add_done_callback(self._ending.discard)
        return region.ending

    async def _give_back(self, region: Region) -> None:
        unregistering = AsyncRetrying(
            retry=retry_if_exception_message(match=".*currently in use"),
            wait=wait_fixed(IN_USE_POLL_SECONDS),
            stop=stop_after_delay(IN_USE_SECONDS),
            reraise=True,
        )
        try:
            with suppress(ClientError):
                await unregistering(self._ask, "unregister_system_shared_memory", region.name)
        finally:
            region.unlink()

    async def _tidy(self) -> None:
        """Unregister what clients that were killed left: their files are gone."""
        status = await self._ask("get_system_shared_memory_status")
        known = status.get("regions", {}) if isinstance(status, dict) else status
        names = known if isinstance(known, dict) else [region["name"] for region in known]
        for name in names:
            if name.startswith(PREFIX) and not (DEV_SHM / name).exists():
                await self._ask("unregister_system_shared_memory", name)


def _new_region(size: int) -> Region:
    # Writing to memory that is not there would end the process.
    if shutil.disk_usage(DEV_SHM).free < size:
        raise InvalidRequest(f"{DEV_SHM} has no room for {size} bytes; make it larger")
    try:
        return Region(size)
    except shared_memory.SharedMemoryException as error:
        raise InvalidRequest(f"no shared memory of {size} bytes: {error}") from error
