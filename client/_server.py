"""One server: the calls that a classifier needs, over either protocol."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ._endpoint import Endpoint, port_hint
from ._exceptions import ClientError, DeadlineExceeded, ServerUnavailable
from ._options import RequestOptions
from ._shared_memory import Regions
from ._translation import translated
from ._transport import transport


@dataclass(eq=False)
class Connection:
    """tritonclient's client and the number of requests that use it."""

    client: Any
    users: int = 0


class Server:
    """A connection to one server, opened by the first request and again after a failure.

    It belongs to the event loop that first uses it.
    """

    def __init__(self, endpoint: Endpoint, options: RequestOptions) -> None:
        self.endpoint = endpoint
        self.in_flight = 0
        self._options = options
        self._transport = transport(endpoint, options)
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[ClientError | None] | None = None
        key = {self._transport.admin_header: options.admin_key} if options.admin_key else {}
        call = partial(self.call, headers=key)
        self._regions = Regions(call) if options.shared_memory else None

    async def close(self) -> None:
        """Release shared memory and close the connection."""
        if self._regions:
            await self._regions.close()
        if self._connecting:
            self._connecting.cancel()
        if self._connection:
            await self._connection.client.close()

    async def infer(self, model: str, images: Sequence[bytes], **keywords: Any) -> Any:  # noqa: ANN401
        """Send encoded images as one batch and return tritonclient's result.

        `keywords` are those of tritonclient's `infer`: parameters, request_id and headers.

        Raises:
            ClientError: or a subclass.
        """
        keywords |= self._transport.compression
        # The server drops a request that waits longer, since nobody waits for it any more.
        keywords["timeout"] = int(self._options.timeout * 1e6)  # microseconds
        self.in_flight += 1
        try:
            async with self._tensor(images) as tensor:
                return await self.call("infer", model, [tensor], **keywords)
        finally:
            self.in_flight -= 1

    async def check(self, model: str) -> None:
        """Return if the server has the model ready.

        Raises:
            ClientError: the model is not ready, or the server does not respond.
        """
        await self.call("get_model_metadata", model)

    async def is_live(self) -> bool:
        """Whether the server responds within the connection timeout."""
        return await self._connect() is None

    async def ready_models(self) -> list[str]:
        """List the names of the models that are ready.

        The statistics API has them for everybody, the model repository API for administrators only.
        """
        statistics = await self.call("get_inference_statistics")
        return sorted({model["name"] for model in statistics.get("model_stats", [])})

    async def config(self, model: str) -> dict[str, Any]:
        """Return a ready model's configuration, as the JSON form of ModelConfig."""
        response = await self.call("get_model_config", model)
        config: dict[str, Any] = response.get("config", response)
        return config

    async def call(self, method: str, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
        """Call a method of tritonclient's client by name; connect first if necessary.

        Raises:
            ClientError: or a subclass.
        """
        if error := await self._connected():
            raise copy(error)
        try:
            return await self._send(method, *arguments, **keywords)
        except ServerUnavailable:
            self._connecting = None
            if self._regions:
                self._regions.forget()
            raise

    async def _send(self, method: str, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
        keywords["headers"] = {**self._options.headers, **(keywords.get("headers") or {})}
        if method.startswith("get_"):
            keywords |= self._transport.as_json
        async with self._client() as client:
            with translated(self.endpoint, self._transport.connection_errors):
                return await getattr(client, method)(
                    *arguments, **self._transport.options, **keywords
                )

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Any]:
        """Lend tritonclient's client to one request, and drop it if its connections are useless.

        A dropped client is closed when the other requests that use it have finished.
        """
        connection = self._connection = self._connection or Connection(self._transport.connect())
        connection.users += 1
        try:
            yield connection.client
        except ServerUnavailable as error:
            if error.reconnect and connection is self._connection:
                self._connection = None
            raise
        finally:
            connection.users -= 1
            if connection is not self._connection and not connection.users:
                await connection.client.close()

    async def _connected(self) -> ClientError | None:
        """Wait for the connection, which the first of several concurrent requests opens."""
        if self._connecting is None or _failed(self._connecting):
            self._connecting = asyncio.create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> ClientError | None:
        """Wait for any response within the connection timeout, and return the error if none comes.

        A timeout counts as ServerUnavailable, so that the request goes to another server.
        """
        timeout = self._options.connect_timeout
        try:
            with translated(self.endpoint, self._transport.connection_errors):
                await asyncio.wait_for(self._send("is_server_live"), timeout)
        except ServerUnavailable as error:
            hint = "" if isinstance(error, DeadlineExceeded) else await port_hint(self.endpoint)
            return ServerUnavailable(hint or str(error))
        except ClientError:
            pass  # the server responded, even if it rejected the request
        return None

    @asynccontextmanager
    async def _tensor(self, images: Sequence[bytes]) -> AsyncIterator[Any]:
        """Create the tensor IMAGE, STRING [N, 1]."""
        tensor = self._transport.tensor("IMAGE", [len(images), 1], "BYTES")
        if self._regions:
            async with self._regions.holding(images) as (name, size):
                tensor.set_shared_memory(name, size)
                yield tensor
        else:
            tensor.set_data_from_numpy(np.array(images, dtype=np.object_).reshape(-1, 1))
            yield tensor


def _failed(task: asyncio.Task[ClientError | None]) -> bool:
    return task.done() and (task.cancelled() or task.result() is not None)
