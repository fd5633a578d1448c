"""The two classifiers, for threads and for asyncio, with the same methods."""

import asyncio
import os
import weakref
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import Future
from itertools import islice
from pathlib import Path

from ._endpoint import Endpoint, Protocol
from ._engine import Engine
from ._loop import LOOP
from ._options import Compression, Headers, RequestOptions, Tls
from ._results import Classification, Model
from ._sources import Source, expand

DEFAULT_MODEL = "resnet50_v1"
DEFAULT_CONCURRENCY = 8
DEFAULT_READY_SECONDS = 60.0

# A stream submits up to this many times its concurrency ahead of its reader, so that one slow
# request does not idle the others.
AHEAD = 4


class _Base:
    """The constructor and properties that both classifiers share."""

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        model: str = DEFAULT_MODEL,
        top_k: int | None = None,
        protocol: Protocol | None = None,
        timeout: float = RequestOptions.timeout,
        connect_timeout: float = RequestOptions.connect_timeout,
        retries: int = RequestOptions.retries,
        tls: Tls | None = None,
        headers: Headers | None = None,
        compression: Compression | None = None,
        shared_memory: bool = False,
        admin_key: str | None = None,
    ) -> None:
        """Configure a classifier; it connects at the first request.

        `url` is `localhost:8001`, `grpc://host:8001`, `grpcs://host`, `http://host:8000` or
        `https://host/path`, or a list of such URLs of servers that have the same models: requests
        are balanced over them, and a server that fails is excluded until it is ready again.
        `protocol` applies to URLs without a scheme.

        `top_k` is the number of classes to return for each image. By default the server decides:
        5, or all if the model has fewer.

        Times are in seconds: `timeout` is the deadline of each attempt of a request,
        `connect_timeout` the connection timeout. `retries` is how often a request is retried,
        with exponential backoff, when no server accepts it or responds in time.

        `headers` go with every request, `tls` names certificates, `compression` (gzip or deflate)
        applies to requests and responses, and `shared_memory` passes images to a server on the
        same machine in system shared memory. `admin_key` is the administrator's key, which the
        server may require for shared memory.

        Raises:
            ValueError: invalid URL or option.
        """
        options = RequestOptions(
            timeout,
            connect_timeout,
            retries,
            tls,
            headers or {},
            compression,
            shared_memory,
            admin_key,
        )
        urls = [url] if isinstance(url, str) else url
        if not urls:
            raise ValueError("no URL given: use a form such as localhost:8001")
        secure = tls is not None
        endpoints = [Endpoint.parse(each, protocol, secure=secure) for each in urls]
        self._engine = Engine(endpoints, options, model=model, top_k=top_k)
        self._finalizer = weakref.finalize(self, self._abandon, self._engine, os.getpid())

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._engine.model

    @property
    def top_k(self) -> int | None:
        """The number of classes to return for each image, or None for the server's default."""
        return self._engine.top_k

    @staticmethod
    def _abandon(engine: Engine, process: int) -> None:
        """Clean up a classifier that was not closed, in the process that created it."""


class Classifier(_Base):
    """An image classifier on a Triton server.

        with Classifier("localhost:8001", model="resnet50_v1", top_k=3) as classifier:
            for prediction in classifier.image("cat.jpg").predictions:
                print(prediction.label, prediction.probability)

    It is thread-safe. A forked process must create its own.
    """

    def __enter__(self) -> "Classifier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a `with` block does so at its end."""
        self._finalizer.detach()
        LOOP.run(self._engine.pool.close())

    def image(
        self, source: Source, *, request_id: str | None = None, headers: Headers | None = None
    ) -> Classification:
        """Classify one image.

            classifier.image("cat.jpg").top
            classifier.image("cat.jpg", headers={"traceparent": traceparent})

        A source is a path, an http or https URL, the bytes of an image file, a binary file object,
        a Pillow image, or a uint8 array [height, width, 3]. `request_id` identifies the request in
        the server's log (default: a unique id). `headers` are added to the classifier's own, or
        replace them.

        Raises:
            ClientError: or a subclass.
            ValueError: invalid header.
        """
        return self.batch([source], request_id=request_id, headers=headers)[0]

    def batch(
        self,
        sources: Iterable[Source],
        *,
        request_id: str | None = None,
        headers: Headers | None = None,
    ) -> list[Classification]:
        """Classify images in one request, which fails if one of them is invalid.

            [result.top.label for result in classifier.batch(["cat.jpg", "dog.png"])]

        Raises:
            ClientError: or a subclass; `InvalidImage` names the source that was rejected.
            ValueError: invalid header.
        """
        return LOOP.run(self._engine.classify(sources, request_id, headers))

    def stream(
        self,
        sources: str | Path | Iterable[Source],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        batch_size: int = 1,
        recursive: bool = False,
    ) -> Iterator[Classification]:
        """Classify any number of images, and yield the results in the order of the images.

            for result in classifier.stream(["photos", "more/*.png"]):
                print(result.source, result.error or result.top.label)

        At most `concurrency` requests of `batch_size` images are in flight. Folders and patterns
        are replaced by their images, see `expand`. Every image has a result: if it cannot be
        classified, the result has an `error`, and the stream continues.

        Raises:
            ValueError: `concurrency` or `batch_size` is less than 1.
            Exception: whatever the iterator `sources` itself raises; it ends the stream.
        """
        _check(concurrency, batch_size)
        images = expand(_as_list(sources), recursive=recursive)
        return self._stream(images, concurrency, batch_size)

    def models(self) -> list[Model]:
        """List the server's classifiers, without the models they consist of.

            [model.name for model in classifier.models() if model.ready]

        Raises:
            ClientError: or a subclass.
        """
        return LOOP.run(self._engine.models())

    def is_live(self) -> bool:
        """Whether any server responds.

        if not classifier.is_live(): ...
        """
        return LOOP.run(self._engine.pool.is_live())

    def wait_until_ready(self, timeout: float = DEFAULT_READY_SECONDS) -> None:
        """Return as soon as the model is ready on one of the servers.

            classifier.wait_until_ready(timeout=120)

        Raises:
            ClientError: the model is not ready after `timeout` seconds; the subclass tells why.
        """
        LOOP.run(self._engine.wait_until_ready(timeout))

    @staticmethod
    def _abandon(engine: Engine, process: int) -> None:
        if process == os.getpid():
            LOOP.finish(engine.pool.close())

    def _stream(
        self, images: Iterator[Source], concurrency: int, batch_size: int
    ) -> Iterator[Classification]:
        slots = asyncio.Semaphore(concurrency)
        pending: deque[Future[list[Classification]]] = deque()
        try:
            while batch := list(islice(images, batch_size)):
                pending.append(LOOP.submit(self._engine.classify_each(slots, batch)))
                while pending and (pending[0].done() or len(pending) >= AHEAD * concurrency):
                    yield from pending[0].result()
                    pending.popleft()
            while pending:
                yield from pending[0].result()
                pending.popleft()
        finally:
            for each in pending:
                each.cancel()


class AsyncClassifier(_Base):
    """An image classifier on a Triton server, for asyncio.

        async with AsyncClassifier("localhost:8001", model="resnet50_v1") as classifier:
            async for result in classifier.stream(paths):
                print(result.source, result.error or result.top.label)

    Any number of tasks of one event loop may use it concurrently.
    """

    async def __aenter__(self) -> "AsyncClassifier":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; an `async with` block does so at its end."""
        await self._engine.pool.close()

    async def image(
        self, source: Source, *, request_id: str | None = None, headers: Headers | None = None
    ) -> Classification:
        """Classify one image, as `Classifier.image` does."""
        return (await self.batch([source], request_id=request_id, headers=headers))[0]

    async def batch(
        self,
        sources: Iterable[Source],
        *,
        request_id: str | None = None,
        headers: Headers | None = None,
    ) -> list[Classification]:
        """Classify images in one request, as `Classifier.batch` does."""
        return await self._engine.classify(sources, request_id, headers)

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

        The sources may also come from an asynchronous iterator.
        """
        _check(concurrency, batch_size)
        batches = _batches(sources, batch_size, recursive=recursive)
        return self._stream(batches, concurrency)

    async def models(self) -> list[Model]:
        """List the server's classifiers, as `Classifier.models` does."""
        return await self._engine.models()

    async def is_live(self) -> bool:
        """Whether any server responds."""
        return await self._engine.pool.is_live()

    async def wait_until_ready(self, timeout: float = DEFAULT_READY_SECONDS) -> None:
        """Return as soon as the model is ready, as `Classifier.wait_until_ready` does."""
        await self._engine.wait_until_ready(timeout)

    async def _stream(
        self, batches: AsyncIterator[list[Source]], concurrency: int
    ) -> AsyncIterator[Classification]:
        slots = asyncio.Semaphore(concurrency)
        pending: deque[asyncio.Task[list[Classification]]] = deque()
        try:
            async for batch in batches:
                pending.append(asyncio.create_task(self._engine.classify_each(slots, batch)))
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
        raise ValueError("concurrency and batch size must be at least 1")


def _as_list(sources: str | Path | Iterable[Source]) -> Iterable[Source]:
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
        for source in _as_list(sources):
            yield source


async def _expanded(source: Source, *, recursive: bool) -> list[Source]:
    if not isinstance(source, str | Path):
        return [source]
    return await asyncio.to_thread(lambda: list(expand([source], recursive=recursive)))
