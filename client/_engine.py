"""From sources to results: the part that the threaded and the asyncio classifier share."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

from . import _listing, _sources
from ._endpoint import Endpoint
from ._exceptions import ClientError, InvalidImage
from ._options import Headers, RequestOptions, normalized
from ._pool import Pool
from ._results import Classification, Model, Prediction
from ._server import Server
from ._sources import ImageFile, Source

OUTPUTS = ("CLASS_ID", "PROBABILITY", "LABEL")


class Engine:
    """Classifies with one model on one or more servers, inside one event loop."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        options: RequestOptions,
        *,
        model: str,
        top_k: int | None,
    ) -> None:
        self.model = model
        self.top_k = top_k
        servers = [Server(endpoint, options) for endpoint in endpoints]
        self.pool = Pool(servers, model, options.retries)
        self._client_id = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    async def classify(
        self,
        sources: Iterable[Source],
        request_id: str | None = None,
        headers: Headers | None = None,
    ) -> list[Classification]:
        """Classify all sources in one request, which fails if one of them is invalid.

        Raises:
            ClientError: or a subclass.
            ValueError: invalid header.
        """
        headers = normalized(headers or {})
        images = [await self._load(source) for source in sources]
        return await self._infer(images, request_id, headers) if images else []

    async def classify_each(
        self, slots: asyncio.Semaphore, sources: Sequence[Source]
    ) -> list[Classification]:
        """Classify sources in one request, and again without those that it fails for.

        A source that fails has a result with its error. `slots` limits the concurrency.
        """
        async with slots:
            outcomes = [await self._load_or_fail(source) for source in sources]
            while images := [each for each in outcomes if isinstance(each, ImageFile)]:
                results = iter(await self._infer_or_fail(images))
                outcomes = [
                    next(results) if isinstance(each, ImageFile) else each for each in outcomes
                ]
        return [each for each in outcomes if isinstance(each, Classification)]

    async def models(self) -> list[Model]:
        """List the classifiers in the repository of one of the servers, ready or not."""
        return await self.pool.request(_listing.models)

    async def wait_until_ready(self, timeout: float) -> None:
        """Return when one of the servers has the model ready.

        Raises:
            ClientError: the model is not ready after `timeout` seconds.
        """
        with self._error_context():
            await self.pool.wait_until_ready(timeout)

    async def _load(self, source: Source) -> ImageFile:
        with self._error_context([_sources.name_of(source)]):
            return await _sources.load(source)

    async def _load_or_fail(self, source: Source) -> ImageFile | Classification:
        try:
            return await self._load(source)
        except InvalidImage as error:
            return self._failed(_sources.name_of(source), error)

    async def _infer(
        self,
        images: Sequence[ImageFile],
        request_id: str | None = None,
        headers: Headers | None = None,
    ) -> list[Classification]:
        request_id = request_id or f"{self._client_id}-{next(self._numbers)}"
        data = [image.data for image in images]
        parameters = {} if self.top_k is None else {"top_k": self.top_k}
        keywords = {"request_id": request_id, "headers": headers, "parameters": parameters}
        start = time.perf_counter()
        with self._error_context([image.name for image in images], request_id):
            result = await self.pool.request(
                lambda server: server.infer(self.model, data, **keywords)
            )
        seconds = time.perf_counter() - start
        columns = [result.as_numpy(name) for name in OUTPUTS]
        return [
            Classification(image.name, self.model, _predictions(row), seconds, request_id)
            for image, *row in zip(images, *columns, strict=True)
        ]

    async def _infer_or_fail(self, images: Sequence[ImageFile]) -> list[ImageFile | Classification]:
        """Classify in one request; return the images that another image's error kept from it."""
        start = time.perf_counter()
        try:
            return [*await self._infer(images)]
        except ClientError as error:
            seconds = time.perf_counter() - start
            rejected = error.position if isinstance(error, InvalidImage) else None
            return [
                image
                if rejected not in {None, position}
                else self._failed(image.name, error, seconds)
                for position, image in enumerate(images)
            ]

    def _failed(self, name: str, error: ClientError, seconds: float = 0.0) -> Classification:
        error = copy(error)  # each image of a batch has its own
        error.source = name
        return Classification(
            name, self.model, seconds=seconds, request_id=error.request_id, error=error
        )

    @contextmanager
    def _error_context(
        self, names: Sequence[str] = (), request_id: str | None = None
    ) -> Iterator[None]:
        """Attach model, request id and the source that failed to a ClientError."""
        try:
            yield
        except ClientError as error:
            error.model, error.request_id = self.model, request_id
            if len(names) == 1:
                error.source = names[0]
            elif isinstance(error, InvalidImage) and error.position is not None:
                error.source = names[error.position]
            raise


def _predictions(columns: Iterable[Any]) -> tuple[Prediction, ...]:
    return tuple(
        Prediction(int(class_id), float(probability), label.decode())
        for class_id, probability, label in zip(*columns, strict=True)
    )
