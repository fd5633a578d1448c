"""From sources to results: what the classifiers for threads and for asyncio have in common."""

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from copy import copy
from typing import Any, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
    wait_random_exponential,
)

from client import _listing, _sources
from client._endpoint import Endpoint
from client._exceptions import (
    ClientError,
    InvalidImage,
    InvalidRequest,
    ModelNotFound,
    ServerUnavailable,
)
from client._pool import Pool
from client._results import Classification, Model, Prediction
from client._server import Server
from client._settings import Settings
from client._sources import ImageFile, Source

logger = logging.getLogger(__name__)

T = TypeVar("T")

OUTPUTS = ("CLASS_ID", "PROBABILITY", "LABEL")

# The waits between tries are random, up to these many seconds: 0.25, 0.5, 1 and so on.
FIRST_WAIT = 0.25
LONGEST_WAIT = 8.0
READY_POLL_SECONDS = 0.25

# How the server says which image of a batch it refuses.
REFUSED_IMAGE = re.compile(r"IMAGE\[(?P<index>\d+)\]: (?P<why>.*)", re.DOTALL)


class Engine:
    """Classifies with one model on one or more servers, inside one event loop."""

    def __init__(
        self, endpoints: Sequence[Endpoint], settings: Settings, *, model: str, top_k: int
    ) -> None:
        self.model = model
        self.top_k = top_k
        self._retries = settings.retries
        self._pool = Pool([Server(endpoint, settings) for endpoint in endpoints], model)
        self._client_id = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    async def classify(
        self, sources: Iterable[Source], request_id: str | None = None
    ) -> list[Classification]:
        """Classify all sources in one request, or none.

        Raises:
            ClientError: one of its kinds.
        """
        images = [await self._load(source) for source in sources]
        return await self._request(images, request_id) if images else []

    async def attempt(
        self, slots: asyncio.Semaphore, sources: Sequence[Source]
    ) -> list[Classification]:
        """Classify as many of the sources as can be: each that cannot is a failed result."""
        async with slots:
            outcomes = [await self._loaded(source) for source in sources]
            while images := [each for each in outcomes if isinstance(each, ImageFile)]:
                answers = iter(await self._outcomes(images))
                outcomes = [
                    next(answers) if isinstance(each, ImageFile) else each for each in outcomes
                ]
        return [each for each in outcomes if isinstance(each, Classification)]

    async def models(self) -> list[Model]:
        """List the classifiers in the repository of one of the servers, ready or not."""
        return await self._ask(_listing.models)

    async def is_live(self) -> bool:
        """Whether any of the servers answers."""
        return any(await asyncio.gather(*(server.is_live() for server in self._pool.servers)))

    async def wait_until_ready(self, timeout: float) -> None:
        """Return when one of the servers has the model ready.

        Raises:
            ClientError: none has, after `timeout` seconds; which one says why.
        """
        waiting = AsyncRetrying(
            stop=stop_after_delay(timeout),
            wait=wait_fixed(READY_POLL_SECONDS),
            retry=retry_if_exception_type((ServerUnavailable, ModelNotFound)),
            reraise=True,
        )
        try:
            await waiting(self._pool.ask, lambda server: server.check(self.model))
        except ClientError as error:
            error.model = self.model
            raise

    async def _load(self, source: Source) -> ImageFile:
        try:
            return await _sources.load(source)
        except InvalidImage as error:
            error.model = self.model
            raise

    async def _loaded(self, source: Source) -> ImageFile | Classification:
        try:
            return await self._load(source)
        except InvalidImage as error:
            return self._failed(_sources.name_of(source), error)

    async def _outcomes(self, images: Sequence[ImageFile]) -> list[ImageFile | Classification]:
        """Classify in one request; if one image is to blame, the others are left to be tried."""
        start = time.perf_counter()
        try:
            return [*await self._request(images)]
        except ClientError as error:
            seconds = time.perf_counter() - start
            blamed = error.position if isinstance(error, InvalidImage) else None
            return [
                image
                if blamed not in {None, position}
                else self._failed(image.name, copy(error), seconds)
                for position, image in enumerate(images)
            ]

    def _failed(self, name: str, error: ClientError, seconds: float = 0.0) -> Classification:
        error.source = name
        return Classification(
            name, self.model, seconds=seconds, request_id=error.request_id, error=error
        )

    async def _request(
        self, images: Sequence[ImageFile], request_id: str | None = None
    ) -> list[Classification]:
        request_id = request_id or f"{self._client_id}-{next(self._numbers)}"
        data = [image.data for image in images]
        parameters = {"top_k": self.top_k}
        start = time.perf_counter()
        try:
            answer = await self._ask(
                lambda server: server.infer(self.model, data, parameters, request_id)
            )
        except ClientError as error:
            blamed = _blame(error, images)
            blamed.model, blamed.request_id = self.model, request_id
            raise blamed from error.__cause__
        seconds = time.perf_counter() - start
        columns = [answer.as_numpy(name) for name in OUTPUTS]
        return [
            Classification(image.name, self.model, _predictions(row), seconds, request_id)
            for image, *row in zip(images, *columns, strict=True)
        ]

    async def _ask(self, question: Callable[[Server], Awaitable[T]]) -> T:
        trying = AsyncRetrying(
            stop=stop_after_attempt(1 + self._retries),
            wait=wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
            retry=retry_if_exception_type(ServerUnavailable),
            before_sleep=_tell,
            reraise=True,
        )
        return await trying(self._pool.ask, question)


def _tell(state: RetryCallState) -> None:
    if state.outcome and state.next_action:
        why, wait = state.outcome.exception(), state.next_action.sleep
        logger.info("%s; trying again in %.2f s", why, wait)


def _blame(error: ClientError, images: Sequence[ImageFile]) -> ClientError:
    """Find the image that the server's message is about."""
    if len(images) == 1:
        error.source = images[0].name
    refused = REFUSED_IMAGE.search(str(error)) if isinstance(error, InvalidRequest) else None
    if not refused:
        return error
    blame = InvalidImage(refused["why"])
    blame.position = int(refused["index"])
    blame.source = images[blame.position].name
    return blame


def _predictions(columns: Iterable[Any]) -> tuple[Prediction, ...]:
    return tuple(
        Prediction(int(class_id), float(probability), label.decode())
        for class_id, probability, label in zip(*columns, strict=True)
    )
