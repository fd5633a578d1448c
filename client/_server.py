"""One server: the calls that a classifier needs, on either protocol."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from client._dialects import dialect
from client._endpoint import Endpoint
from client._exceptions import ClientError, ServerUnavailable
from client._failures import translated
from client._settings import Settings
from client._shared_memory import Regions


class Server:
    """A connection to one server, made when it is first needed and again after a failure.

    It belongs to the event loop that first uses it.
    """

    def __init__(self, endpoint: Endpoint, settings: Settings) -> None:
        self.endpoint = endpoint
        self.in_flight = 0
        self._dialect = dialect(endpoint, settings)
        self._connect_timeout = settings.connect_timeout
        self._client: Any = None
        self._connecting: asyncio.Task[ClientError | None] | None = None
        self._regions = Regions(self._ask) if settings.shared_memory else None

    async def close(self) -> None:
        """Close the connection, and give shared memory back."""
        if self._regions:
            await self._regions.close()
        if self._connecting:
            self._connecting.cancel()
        if self._client:
            await self._client.close()

    async def infer(
        self, model: str, images: Sequence[bytes], parameters: Mapping[str, int], request_id: str
    ) -> Any:  # noqa: ANN401 - tritonclient has no types
        """Send encoded images as one batch and return tritonclient's result.

        Raises:
            ClientError: of the kind that the server's answer, or its silence, calls for.
        """

        async def send() -> Any:  # noqa: ANN401
            async with self._input(images) as tensor:
                return await self._client.infer(
                    model,
                    [tensor],
                    parameters=dict(parameters),
                    request_id=request_id,
                    **self._options,
                    **self._dialect.compression,
                )

        self.in_flight += 1
        try:
            return await self._call(send)
        finally:
            self.in_flight -= 1

    async def check(self, model: str) -> None:
        """Return if the server has the model ready.

        Raises:
            ClientError: it has not; which one says why.
        """
        await self._ask("get_model_metadata", model)

    async def is_live(self) -> bool:
        """Whether anything answers there in time for a connection."""
        return await self._reach() is None

    async def index(self) -> list[dict[str, Any]]:
        """List the models in the server's repository, whatever their state."""
        answer = await self._ask("get_model_repository_index")
        models: list[dict[str, Any]] = (
            answer.get("models", []) if isinstance(answer, dict) else answer
        )
        return models

    async def config(self, model: str) -> dict[str, Any]:
        """Get a ready model's configuration, as the JSON form of ModelConfig."""
        answer = await self._ask("get_model_config", model)
        config: dict[str, Any] = answer.get("config", answer)
        return config

    async def _ask(self, what: str, *arguments: Any) -> Any:  # noqa: ANN401
        as_json = self._dialect.as_json if what.startswith("get_") else {}

        async def ask() -> Any:  # noqa: ANN401
            return await getattr(self._client, what)(*arguments, **as_json, **self._options)

        return await self._call(ask)

    async def _call(self, call: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401
        if error := await self._connected():
            raise type(error)(str(error))
        try:
            with translated(self.endpoint, self._dialect.lost):
                return await call()
        except ServerUnavailable:
            self._connecting = None
            if self._regions:
                self._regions.forget()
            raise

    async def _connected(self) -> ClientError | None:
        """Wait for the connection, which the first of those who need it makes for all."""
        if self._connecting is None or _failed(self._connecting):
            self._connecting = asyncio.create_task(self._reach())
        return await asyncio.shield(self._connecting)

    async def _reach(self) -> ClientError | None:
        """Get any answer within the time for a connection, or say what went wrong."""
        if self._client is None:
            self._client = self._dialect.open()
        try:
            with translated(self.endpoint, self._dialect.lost):
                await asyncio.wait_for(
                    self._client.is_server_live(**self._options), self._connect_timeout
                )
        except ServerUnavailable as error:
            return ServerUnavailable(str(error))
        except ClientError:
            pass  # a refusal is an answer
        return None

    @property
    def _options(self) -> dict[str, Any]:
        """A copy: tritonclient adds headers of its own."""
        options = self._dialect.options
        return options | {"headers": dict(options["headers"])}

    @asynccontextmanager
    async def _input(self, images: Sequence[bytes]) -> AsyncIterator[Any]:
        """Make the tensor of IMAGE, STRING [N, 1]."""
        tensor = self._dialect.input("IMAGE", [len(images), 1], "BYTES")
        if self._regions:
            async with self._regions.holding(images) as (name, size):
                tensor.set_shared_memory(name, size)
                yield tensor
        else:
            tensor.set_data_from_numpy(np.array(images, dtype=np.object_).reshape(-1, 1))
            yield tensor


def _failed(task: asyncio.Task[ClientError | None]) -> bool:
    return task.done() and (task.cancelled() or task.result() is not None)
