"""Load balancing, failover and retries over servers that have the same model."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
    wait_random_exponential,
)

from ._exceptions import ClientError, DeadlineExceeded, ModelNotFound, ServerUnavailable
from ._server import Server

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Waits between attempts are random, up to 0.25, 0.5, 1, 2, 4 and then 8 seconds.
FIRST_WAIT = 0.25
LONGEST_WAIT = 8.0
READY_POLL_SECONDS = 0.25
# How often an excluded server is checked.
HEALTH_CHECK_SECONDS = 0.5


class Pool:
    """Sends each request to the least busy server and excludes servers that fail."""

    def __init__(self, servers: Sequence[Server], model: str, retries: int) -> None:
        self._servers = servers
        self._model = model
        self._retries = retries
        self._turn = 0
        self._health_checks: dict[Server, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Close all connections."""
        for health_check in self._health_checks.values():
            health_check.cancel()
        await asyncio.gather(*(server.close() for server in self._servers))

    async def request(self, send: Callable[[Server], Awaitable[T]]) -> T:
        """Send a request to one server, and retry while no server accepts it.

        Raises:
            ClientError: or a subclass.
        """
        retrying = AsyncRetrying(
            stop=stop_after_attempt(1 + self._retries),
            wait=wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
            retry=retry_if_exception_type(ServerUnavailable),
            before_sleep=_log_retry,
            reraise=True,
        )
        return await retrying(self._attempt, send)

    async def is_live(self) -> bool:
        """Whether any server responds."""
        return any(await asyncio.gather(*(server.is_live() for server in self._servers)))

    async def wait_until_ready(self, timeout: float) -> None:
        """Return when one of the servers has the model ready.

        Raises:
            ClientError: the model is not ready after `timeout` seconds.
        """
        waiting = AsyncRetrying(
            stop=stop_after_delay(timeout),
            wait=wait_fixed(READY_POLL_SECONDS),
            retry=retry_if_exception_type((ServerUnavailable, ModelNotFound)),
            reraise=True,
        )
        await waiting(self._attempt, lambda server: server.check(self._model))

    async def _attempt(self, send: Callable[[Server], Awaitable[T]]) -> T:
        """Send a request to one server after the other until one accepts it."""
        servers = self._by_load()
        while True:
            server = servers.pop(0)
            try:
                return await send(server)
            except ServerUnavailable as error:
                self._exclude(server, error)
                # After a deadline no time is left in this attempt.
                if not servers or isinstance(error, DeadlineExceeded):
                    raise
                logger.info("%s; trying another server", error)

    def _by_load(self) -> list[Server]:
        """List the servers that are not excluded, or else all, the least busy first."""
        self._turn += 1
        start = self._turn % len(self._servers)
        rotated = [*self._servers[start:], *self._servers[:start]]
        available = [server for server in rotated if server not in self._health_checks]
        return sorted(available or rotated, key=lambda server: server.in_flight)

    def _exclude(self, server: Server, error: ServerUnavailable) -> None:
        if len(self._servers) == 1 or server in self._health_checks:
            return
        logger.warning("%s is excluded until it is ready: %s", server.endpoint, error)
        self._health_checks[server] = asyncio.create_task(self._check(server))

    async def _check(self, server: Server) -> None:
        while True:
            await asyncio.sleep(HEALTH_CHECK_SECONDS)
            try:
                await server.check(self._model)
            except ClientError as error:
                logger.debug("%s is not ready: %s", server.endpoint, error)
            else:
                logger.info("%s is ready", server.endpoint)
                del self._health_checks[server]
                return


def _log_retry(state: RetryCallState) -> None:
    if state.outcome and state.next_action:
        error, wait = state.outcome.exception(), state.next_action.sleep
        logger.info("%s; next attempt in %.2f s", error, wait)
