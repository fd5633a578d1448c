"""The two classifiers: one for threads, one for asyncio, with the same verbs."""

import asyncio
import os
import weakref
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future
from itertools import islice
from pathlib import Path

from client._endpoint import Endpoint, Protocol
from client._engine import Engine
from client._loop import LOOP
from client._results import Classification, Model
from client._settings import Compression, Settings, Tls
from client._sources import Source, expand

DEFAULT_MODEL = "resnet50_v1"
DEFAULT_TOP_K = 5
DEFAULT_CONCURRENCY = 8
DEFAULT_READY_SECONDS = 60.0

# A stream is this many times its concurrency ahead of its reader, so that one slow request does
# not leave the places of those behind it empty.
AHEAD = 4


class _Configured:
    """What a classifier is made from."""

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        model: str = DEFAULT_MODEL,
        top_k: int = DEFAULT_TOP_K,
        protocol: Protocol | None = None,
        timeout: float = Settings.timeout,
        connect_timeout: float = Settings.connect_timeout,
        retries: int = Settings.retries,
        tls: Tls | None = None,
        headers: Mapping[str, str] | None = None,
        compression: Compression | None = None,
        shared_memory: bool = False,
    ) -> None:
        """Nothing is connected before the first request.

        `url` is one like `localhost:8001`, `grpc://host:8001`, `grpcs://host`, `http://host:8000`
        or `https://host/path`, or several, of servers that have the same models: requests are
        spread over them, and one that fails is left out until it is back. `protocol` is for a URL
        that does not say which.

        Times are in seconds: `timeout` bounds each try of a request, `connect_timeout` the wait
        for a server's first sign of life. `retries` is how often a request is tried again that no
        server took, or answered in time, each after a longer wait.

        `headers` go with every request, `tls` holds certificates, `compression` is gzip or
        deflate, both ways, and `shared_memory` hands images to a server on this machine without
        sending them through a socket.

        Raises:
            ValueError: a URL is none, or an option makes no sense.
        """
        settings = Settings(
            timeout, connect_timeout, retries, tls, headers or {}, compression, shared_memory
        )
        urls = [url] if isinstance(url, str) else url
        if not urls:
            raise ValueError("no URL of a server; give one like localhost:8001")
        secure = tls is not None
        endpoints = [Endpoint.parse(each, protocol, secure=secure) for each in urls]
        self._engine = Engine(endpoints, settings, model=model, top_k=top_k)
        self._finalizer = weakref.finalize(self, self._abandon, self._engine, os.getpid())

    @property
    def model(self) -> str:
        """The model that is asked."""
        return self._engine.model

    @property
    def top_k(self) -> int:
        """How many classes each image gets."""
        return self._engine.top_k

    @staticmethod
    def _abandon(engine: Engine, process: int) -> None:
        """Do what can be done for one that nobody closed, in the process that made it."""


class Classifier(_Configured):
    """An image classifier on a Triton server.

        with Classifier("localhost:8001", model="resnet50_v1", top_k=3) as classifier:
            for prediction in classifier.image("cat.jpg").predictions:
                print(prediction.label, prediction.probability)

    Any number of threads may use it at the same time. A process that forks makes its own after
    the fork.
    """

    def __enter__(self) -> "Classifier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, which a `with` block does by itself."""
        self._finalizer.detach()
        LOOP.run(self._engine.close())

    def image(self, source: Source, *, request_id: str | None = None) -> Classification:
        """Classify one image.

            classifier.image("cat.jpg").top

        A source is a path, an http or https URL, the bytes of an image file, a file object opened
        for bytes, a Pillow image, or a uint8 array [height, width, 3]. `request_id` is what the
        server's log shall call the request; it gets one of its own unless given.

        Raises:
            ClientError: one of its kinds.
        """
        return self.batch([source], request_id=request_id)[0]

    def batch(
        self, sources: Iterable[Source], *, request_id: str | None = None
    ) -> list[Classification]:
        """Classify images in one request: all of them, or none.

            [result.top.label for result in classifier.batch(["cat.jpg", "dog.png"])]

        Raises:
            ClientError: one of its kinds; `InvalidImage` names the source that was refused.
        """
        return LOOP.run(self._engine.classify(sources, request_id))

    def stream(
        self,
        sources: str | Path | Iterable[Source],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        batch_size: int = 1,
        recursive: bool = False,
    ) -> Iterator[Classification]:
        """Classify any number of images, in the order they come in.

            for result in classifier.stream(["photos", "more/*.png"]):
                print(result.source, result.error or result.top.label)

        At most `concurrency` requests of `batch_size` images each are under way, however many
        there are. Folders and patterns give their images, as `expand` says. Every source has its
        result: an image that cannot be classified is one with an `error`, and the stream goes on.

        Raises:
            ValueError: `concurrency` or `batch_size` is less than 1.
        """
        _check(concurrency, batch_size)
        images = expand(_several(sources), recursive=recursive)
        return self._stream(images, concurrency, batch_size)

    def models(self) -> list[Model]:
        """List the classifiers that the server has, without the parts they are made of.

            [model.name for model in classifier.models() if model.ready]

        Raises:
            ClientError: one of its kinds.
        """
        return LOOP.run(self._engine.models())

    def is_live(self) -> bool:
        """Whether any server answers, be it only to refuse.

        if not classifier.is_live(): ...
        """
        return LOOP.run(self._engine.is_live())

    def wait_until_ready(self, timeout: float = DEFAULT_READY_SECONDS) -> None:
        """Return as soon as the model is ready on one of the servers.

            classifier.wait_until_ready(timeout=120)

        Raises:
            ClientError: it is not after `timeout` seconds; which one says why.
        """
        LOOP.run(self._engine.wait_until_ready(timeout))

    @staticmethod
    def _abandon(engine: Engine, process: int) -> None:
        if process == os.getpid():
            LOOP.finish(engine.close())

    def _stream(
        self, images: Iterator[Source], concurrency: int, batch_size: int
    ) -> Iterator[Classification]:
        slots = asyncio.Semaphore(concurrency)
        pending: deque[Future[list[Classification]]] = deque()
        try:
            while batch := list(islice(images, batch_size)):
                pending.append(LOOP.submit(self._engine.attempt(slots, batch)))
                while pending and (pending[0].done() or len(pending) >= AHEAD * concurrency):
                    yield from pending[0].result()
                    pending.popleft()
            while pending:
                yield from pending[0].result()
                pending.popleft()
        finally:
            for each in pending:
                each.cancel()


class AsyncClassifier(_Configured):
    """An image classifier on a Triton server, for asyncio.

        async with AsyncClassifier("localhost:8001", model="resnet50_v1") as classifier:
            async for result in classifier.stream(paths):
                print(result.source, result.error or result.top.label)

    Any number of tasks of one event loop may use it at the same time.
    """

    async def __aenter__(self) -> "AsyncClassifier":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, which an `async with` block does by itself."""
        await self._engine.close()

    async def image(self, source: Source, *, request_id: str | None = None) -> Classification:
        """Classify one image, as `Classifier.image` does.

        (await classifier.image("cat.jpg")).top
        """
        return (await self.batch([source], request_id=request_id))[0]

    async def batch(
        self, sources: Iterable[Source], *, request_id: str | None = None
    ) -> list[Classification]:
        """Classify images in one request, as `Classifier.batch` does.

        cat, dog = await classifier.batch(["cat.jpg", "dog.png"])
        """
        return await self._engine.classify(sources, request_id)

    def stream(
        self,
        sources: str | Path | Iterable[Source] | AsyncIterable[Source],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        batch_size: int = 1,
        recursive: bool = False,
    ) -> AsyncIterator[Classification]:
        """Classify any number of images in order, as `Classifier.stream` does.

            async for result in classifier.stream(["photos", "more/*.png"]):
                print(result.source, result.error or result.top.label)

        The sources may come from an asynchronous iterator, too.
        """
        _check(concurrency, batch_size)
        batches = _batches(sources, batch_size, recursive=recursive)
        return self._stream(batches, concurrency)

    async def models(self) -> list[Model]:
        """List the classifiers that the server has, as `Classifier.models` does.

        [model.name for model in await classifier.models() if model.ready]
        """
        return await self._engine.models()

    async def is_live(self) -> bool:
        """Whether any server answers, be it only to refuse.

        if not await classifier.is_live(): ...
        """
        return await self._engine.is_live()

    async def wait_until_ready(self, timeout: float = DEFAULT_READY_SECONDS) -> None:
        """Return as soon as the model is ready, as `Classifier.wait_until_ready` does.

        await classifier.wait_until_ready(timeout=120)
        """
        await self._engine.wait_until_ready(timeout)

    async def _stream(
        self, batches: AsyncIterator[list[Source]], concurrency: int
    ) -> AsyncIterator[Classification]:
        slots = asyncio.Semaphore(concurrency)
        pending: deque[asyncio.Task[list[Classification]]] = deque()
        try:
            async for batch in batches:
                pending.append(asyncio.create_task(self._engine.attempt(slots, batch)))
                while pending and (pending[0].done() or len(pending) >= AHEAD * concurrency):
                    for result in await pending[0]:
                        yield result
                    pending.popleft()
            while pending:
                for result in await pending[0]:
                    yield result
                pending.popleft()
        finally:
            for each in pending:
                each.cancel()


def _check(concurrency: int, batch_size: int) -> None:
    if concurrency < 1 or batch_size < 1:
        raise ValueError("concurrency and batch size are numbers from 1")


def _several(sources: str | Path | Iterable[Source]) -> Iterable[Source]:
    return [sources] if isinstance(sources, str | Path) else sources


async def _batches(
    sources: str | Path | Iterable[Source] | AsyncIterable[Source],
    batch_size: int,
    *,
    recursive: bool,
) -> AsyncIterator[list[Source]]:
    batch: list[Source] = []
    async for source in _each(sources):
        for image in await _expanded(source, recursive=recursive):
            batch.append(image)
            if len(batch) == batch_size:
                yield batch
                batch = []
    if batch:
        yield batch


async def _each(
    sources: str | Path | Iterable[Source] | AsyncIterable[Source],
) -> AsyncIterator[Source]:
    if isinstance(sources, AsyncIterable):
        async for source in sources:
            yield source
    else:
        for source in _several(sources):
            yield source


async def _expanded(source: Source, *, recursive: bool) -> list[Source]:
    if not isinstance(source, str | Path):
        return [source]
    return await asyncio.to_thread(lambda: list(expand([source], recursive=recursive)))
