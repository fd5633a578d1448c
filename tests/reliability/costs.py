"""Images that are costly to decode: seconds, and memory of the whole server."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from client import SAMPLE, Classifier, ClientError, InvalidImage, ServerUnavailable
from tests.bombs import BOMBS
from tests.faults import serving
from tests.reliability.rows import Row, Track
from tests.reliability.usage import peak_memory, usage

MOST_MEMORY = 1024  # MiB above the idle server
MOST_SECONDS = 5.0
OUTCOMES = {InvalidImage: "refused", ServerUnavailable: "asked to try again"}


def bombs(repository: Path, scale: float, track: Track) -> Iterator[Row]:
    """Send the costliest images, one and as many as there are decoders."""
    with (
        serving(repository) as served,
        Classifier(served.url("http"), model=served.model, retries=0) as classifier,
    ):
        classifier.image(SAMPLE)
        idle = usage(served.process.pid).memory
        copies = sorted({1, len(served.stubs("preprocess"))})
        for name, make in track(BOMBS.items(), len(BOMBS), "costly images"):
            for count in copies:
                images = [make()] * count
                with peak_memory(served.process.pid) as peak:
                    outcomes, seconds = _classify(classifier, images)
                yield _cost(f"{name}, {count} at once: {outcomes}", seconds, peak[0] - idle)


def _classify(classifier: Classifier, images: list[bytes]) -> tuple[str, float]:
    """Classify images at once; return what came of them, and after how many seconds."""
    start = time.monotonic()
    with ThreadPoolExecutor(len(images)) as pool:
        outcomes = sorted({*pool.map(partial(_outcome, classifier), images)})
    return ", ".join(outcomes), time.monotonic() - start


def _cost(tried: str, seconds: float, memory: float) -> Row:
    is_costly = memory > MOST_MEMORY or seconds > MOST_SECONDS
    problems = ("too costly",) if is_costly else ()
    return Row(tried, f"{seconds:.1f} s, {memory:.0f} MiB", problems)


def _outcome(classifier: Classifier, data: bytes) -> str:
    try:
        classifier.image(data)
    except ClientError as error:
        return OUTCOMES.get(type(error), f"{type(error).__name__}: {error}")
    return "answered"
