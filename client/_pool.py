"""Several servers as one: requests are spread, and a server that fails is left out for a while."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from client._exceptions import ClientError, DeadlineExceeded, ServerUnavailable
from client._server import Server

logger = logging.getLogger(__name__)

T = TypeVar("T")

# How often a server that is left out is asked whether it is back.
WATCH_SECONDS = 0.5


class Pool:
    """Servers that all have the same model."""

    def __init__(self, servers: Sequence[Server], model: str) -> None:
        self.servers = servers
        self._model = model
        self._turn = 0
        self._watchers: dict[Server, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Close all connections."""
        for watcher in self._watchers.values():
            watcher.cancel()
        await asyncio.gather(*(server.close() for server in self.servers))

    async def ask(self, question: Callable[[Server], Awaitable[T]]) -> T:
        """Ask the servers in turn until one is there to answer.

        Raises:
            ClientError: what a server answered; `ServerUnavailable` only where the last one did.
        """
        *others, last = self._in_turn()
        for server in others:
            try:
                return await self._ask(server, question)
            except DeadlineExceeded:
                raise  # the time of this attempt is over
            except ServerUnavailable as error:
                logger.info("%s; asking another server", error)
        return await self._ask(last, question)

    async def _ask(self, server: Server, question: Callable[[Server], Awaitable[T]]) -> T:
        try:
            return await question(server)
        except ServerUnavailable as error:
            self._leave_out(server, error)
            raise

    def _in_turn(self) -> list[Server]:
        """Order those that are not left out, or else all, by what they have to do."""
        self._turn += 1
        start = self._turn % len(self.servers)
        rotated = [*self.servers[start:], *self.servers[:start]]
        inside = [server for server in rotated if server not in self._watchers]
        return sorted(inside or rotated, key=lambda server: server.in_flight)

    def _leave_out(self, server: Server, why: ServerUnavailable) -> None:
        if len(self.servers) == 1 or server in self._watchers:
            return
        logger.warning("%s is left out until it is back: %s", server.endpoint, why)
        self._watchers[server] = asyncio.create_task(self._watch(server))

    async def _watch(self, server: Server) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await server.check(self._model)
            except ClientError as error:
                logger.debug("%s is not back: %s", server.endpoint, error)
            else:
                logger.info("%s is back", server.endpoint)
                del self._watchers[server]
                return
