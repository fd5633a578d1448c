"""One server: the calls that a classifier needs, on either protocol."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np

from client._dialects import dialect
from client._endpoint import Endpoint
from client._exceptions import ClientError, ServerUnavailable
from client._failures import translated
from client._settings import Settings


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

    async def close(self) -> None:
        """Close the connection."""
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
            return await self._client.infer(
                model,
                [self._tensor(images)],
                parameters=dict(parameters),
                request_id=request_id,
                **self._options,
                **self._dialect.compression,
            )

        self.in_flight += 1
        try:
            return await self._call(send, model=model, request_id=request_id)
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

    async def _ask(self, what: str, *models: str) -> Any:  # noqa: ANN401
        async def ask() -> Any:  # noqa: ANN401
            return await getattr(self._client, what)(
                *models, **self._dialect.as_json, **self._options
            )

        return await self._call(ask, model=models[0] if models else None)

    async def _call(
        self,
        call: Callable[[], Awaitable[Any]],
        *,
        model: str | None,
        request_id: str | None = None,
    ) -> Any:  # noqa: ANN401
        about = {"model": model, "request_id": request_id}
        if error := await self._connected():
            raise type(error)(str(error), **about)
        try:
            with translated(self.endpoint, self._dialect.lost, **about):
                return await call()
        except ServerUnavailable:
            self._connecting = None
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

    def _tensor(self, images: Sequence[bytes]) -> Any:  # noqa: ANN401
        batch = np.array(images, dtype=np.object_).reshape(-1, 1)
        tensor = self._dialect.input("IMAGE", list(batch.shape), "BYTES")
        tensor.set_data_from_numpy(batch)
        return tensor


def _failed(task: asyncio.Task[ClientError | None]) -> bool:
    return task.done() and (task.cancelled() or task.result() is not None)
