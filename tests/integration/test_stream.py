"""Streams of images, and the same methods for threads and for asyncio."""

import asyncio
import gc
import itertools
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from client import (
    SAMPLE,
    AsyncClassifier,
    Classification,
    Classifier,
    ImageFile,
    InvalidImage,
    InvalidRequest,
    ModelNotFound,
    Source,
)
from scripts.embedded import EmbeddedServer
from tests.graphs import CLASSES
from tests.integration.conftest import run_python, url
from tests.invalid_sources import INVALID

JPEG = SAMPLE.read_bytes()


def numbered(count: int) -> Iterator[ImageFile]:
    """Photographs named by their index; every fifth is not an image."""
    for number in range(count):
        yield ImageFile(str(number), b"no image" if number % 5 == 4 else JPEG)


def without_times(result: Classification) -> Classification:
    return replace(result, seconds=0.0, request_id=None, error=None)


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_results_are_in_order_and_only_invalid_images_fail(
    birds: Classifier, batch_size: int
) -> None:
    results = list(birds.stream(numbered(60), concurrency=4, batch_size=batch_size))
    assert [result.source for result in results] == [str(number) for number in range(60)]
    for number, result in enumerate(results):
        if number % 5 == 4:
            assert isinstance(result.error, InvalidImage)
            assert (result.error.source, result.error.model) == (str(number), "birds")
            with pytest.raises(InvalidImage):
                _ = result.top
        else:
            assert result.error is None
            assert result.predictions == results[0].predictions
            assert result.seconds > 0


def test_folders_and_patterns_are_replaced_by_their_images(
    birds: Classifier, tmp_path: Path
) -> None:
    for name in ("b.jpg", "a.jpg", "below/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(JPEG)
    flat = [result.source for result in birds.stream(tmp_path)]
    deep = [result.source for result in birds.stream([f"{tmp_path}/**/*.jpg"], recursive=True)]
    assert flat == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"]
    assert deep == [*flat, f"{tmp_path}/below/c.jpg"]


@pytest.mark.usefixtures("short_wait_for_pipes")
@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_source_that_cannot_be_loaded_is_one_failed_result(
    server: EmbeddedServer,
    birds: Classifier,
    protocol: str,
    tmp_path: Path,
    batch_size: int,
) -> None:
    folders = [tmp_path / str(number) for number in range(len(INVALID) * 2)]
    for folder in folders:
        folder.mkdir()

    def sources() -> Iterator[Source]:
        for make, _ in INVALID.values():
            yield SAMPLE
            yield make(folders.pop())

    async def classify() -> list[Classification]:
        async with AsyncClassifier(url(server, protocol), model="birds") as classifier:
            stream = classifier.stream(sources(), batch_size=batch_size)
            return [result async for result in stream]

    expected = [type(None), InvalidImage] * len(INVALID)
    for results in (list(birds.stream(sources(), batch_size=batch_size)), asyncio.run(classify())):
        assert [type(result.error) for result in results] == expected
        assert {result.model for result in results} == {"birds"}
        assert {result.predictions for result in results[::2]} == {results[0].predictions}


def test_an_error_of_the_callers_own_iterator_ends_the_stream(birds: Classifier) -> None:
    def camera() -> Iterator[Source]:
        yield JPEG
        raise RuntimeError("the camera is off")

    with pytest.raises(RuntimeError, match="the camera is off"):
        list(birds.stream(camera()))
    assert birds.image(JPEG).top


def test_an_error_of_the_whole_request_is_the_result_of_each_image(
    server: EmbeddedServer, protocol: str
) -> None:
    with Classifier(url(server, protocol), model="planes") as classifier:
        results = list(classifier.stream([JPEG] * 3))
    assert [type(result.error) for result in results] == [ModelNotFound] * 3
    with Classifier(url(server, protocol), model="birds", top_k=11) as classifier:
        results = list(classifier.stream([JPEG] * 3, batch_size=3))
    assert [type(result.error) for result in results] == [InvalidRequest] * 3


def test_a_stream_reads_a_bounded_number_of_sources_ahead(birds: Classifier) -> None:
    taken = itertools.count()
    results = birds.stream((ImageFile(str(next(taken)), JPEG) for _ in range(1000)), concurrency=2)
    assert next(results).source == "0"
    results.close()  # type: ignore[attr-defined]
    assert next(taken) <= 2 * 4 + 1


def test_a_slow_source_does_not_delay_results(birds: Classifier) -> None:
    arrived: list[str] = []

    def camera() -> Iterator[ImageFile]:
        for number in range(4):
            yield ImageFile(str(number), JPEG)
            # A camera that produces a frame only after the result of the last one.
            assert birds.image(JPEG).source
            assert len(arrived) >= number - 1

    for result in birds.stream(camera()):
        arrived.append(result.source)  # noqa: PERF401 - camera() reads it
    assert arrived == ["0", "1", "2", "3"]


@pytest.mark.parametrize(("concurrency", "batch_size"), [(0, 1), (1, 0)])
def test_concurrency_and_batch_size_must_be_at_least_1(
    birds: Classifier, concurrency: int, batch_size: int
) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        birds.stream([JPEG], concurrency=concurrency, batch_size=batch_size)


def test_a_classifier_is_thread_safe(birds: Classifier) -> None:
    expected = birds.image(JPEG).predictions

    def work(number: int) -> bool:
        if number % 2:
            return birds.image(JPEG).predictions == expected
        return all(result.predictions == expected for result in birds.stream([JPEG] * 5))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))


def test_a_forked_process_can_create_its_own_classifier(server: EmbeddedServer) -> None:
    code = f"""
import os
from client import SAMPLE, Classifier
def classify(classifier):
    return classifier.image(SAMPLE).top
parents = Classifier({url(server, "http")!r}, model="birds")
top = classify(parents)
child = os.fork()
if not child:
    with Classifier({url(server, "http")!r}, model="birds") as own:
        os._exit(classify(own) != top)
assert os.waitpid(child, 0)[1] == 0
assert classify(parents) == top
"""
    run_python(code)


def test_an_unclosed_classifier_does_not_keep_the_process_running(server: EmbeddedServer) -> None:
    for protocol in ("grpc", "http"):
        address = url(server, protocol)
        run_python(
            "from client import SAMPLE, Classifier\n"
            f"Classifier({address!r}, model='birds').image(SAMPLE)"
        )


@pytest.mark.parametrize("batch_size", [1, 4])
def test_both_classifiers_return_the_same_results(
    server: EmbeddedServer, protocol: str, birds: Classifier, batch_size: int
) -> None:
    async def classify() -> list[Classification]:
        async with AsyncClassifier(url(server, protocol), model="birds") as classifier:
            stream = classifier.stream(numbered(30), concurrency=4, batch_size=batch_size)
            results = [result async for result in stream]
            results.append(await classifier.image(SAMPLE))
            results += await classifier.batch([SAMPLE, JPEG])
            assert await classifier.is_live()
            assert await classifier.models() == birds.models()
            await classifier.wait_until_ready(timeout=5)
            with pytest.raises(InvalidImage):
                await classifier.image(b"no image")
        return results

    ours = asyncio.run(classify())
    theirs = list(birds.stream(numbered(30), batch_size=batch_size))
    theirs += [birds.image(SAMPLE), *birds.batch([SAMPLE, JPEG])]
    assert list(map(without_times, ours)) == list(map(without_times, theirs))
    assert [type(result.error) for result in ours] == [type(result.error) for result in theirs]


def test_asyncio_accepts_asynchronous_sources_and_folders(
    server: EmbeddedServer, protocol: str, tmp_path: Path
) -> None:
    (tmp_path / "cat.jpg").write_bytes(JPEG)

    async def uploads() -> AsyncIterator[Source]:
        yield JPEG
        await asyncio.sleep(0.01)
        yield tmp_path

    async def classify() -> list[str]:
        async with AsyncClassifier(url(server, protocol), model="birds") as classifier:
            return [result.source async for result in classifier.stream(uploads())]

    assert asyncio.run(classify()) == [f"{len(JPEG)} bytes", f"{tmp_path}/cat.jpg"]


def test_other_requests_continue_after_a_task_is_cancelled(
    server: EmbeddedServer, protocol: str
) -> None:
    async def classify() -> None:
        async with AsyncClassifier(url(server, protocol), model="birds") as classifier:
            tasks = [asyncio.create_task(classifier.image(JPEG)) for _ in range(8)]
            await asyncio.sleep(0.001)
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(result, Classification) for result in results[1::2])
            assert (await classifier.image(JPEG)).top

    asyncio.run(classify())


def test_memory_does_not_grow_with_the_number_of_images(
    server: EmbeddedServer,
) -> None:
    def photographs() -> Iterator[ImageFile]:
        for number in range(3_000):
            yield ImageFile(str(number), JPEG + bytes(1))  # a copy, which counts if it is kept

    process = psutil.Process()
    with Classifier(url(server, "grpc"), model="birds", top_k=CLASSES) as classifier:
        results = classifier.stream(photographs(), batch_size=4, concurrency=8)
        deque(itertools.islice(results, 1_000), maxlen=0)
        memory, objects = process.memory_info().rss, live_objects()
        deque(itertools.islice(results, 1_900), maxlen=0)  # as many are in flight as before
        grown = process.memory_info().rss - memory, live_objects() - objects
    # If results were kept, they would be 22,000 objects; sources would be 72 MB.
    assert grown[0] < 30e6
    assert grown[1] < 1_900


def live_objects() -> int:
    """Count the containers that Python's garbage collector tracks."""
    gc.collect()
    return len(gc.get_objects())
