"""Faults under load, and images that are costly to decode."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from client import Classifier, ClientError, InvalidImage
from tests import faults
from tests.bombs import BOMBS
from tests.faults import Served, serving, under_load
from tests.reliability.rows import Row, Track
from tests.reliability.usage import peak_memory, usage

IMAGES = 1_500
QUIET_SECONDS = 1  # before and after a fault
HELD_SECONDS = 3
MOST_MEMORY = 1024  # MiB above idle
MOST_SECONDS = 5.0
STEPS = ("preprocess", "pixels", "postprocess")

FAULTS: dict[str, Callable[[Served], object]] = {
    **{f"{step} process killed": partial(faults.kill_stub, step=step) for step in STEPS},
    "all Python processes killed": faults.kill_all_stubs,
    "preprocess process stopped for 10 s": faults.stop_stub,
    "tritonserver killed": faults.kill_server,
    "tritonserver stopped": faults.stop_server,
    "two million chunks of one byte": faults.send_endless_chunks,
    "1,000 gRPC requests cancelled": faults.cancel_in_bursts,
    "1,000 connections reset": partial(faults.vanish, count=1_000),
}
HOLDING: dict[str, Callable[[Served], AbstractContextManager[None]]] = {
    "1,000 idle connections": partial(faults.idle_connections, count=1_000),
    "50 connections that read nothing": partial(faults.slow_readers, count=50),
}


def under_faults(repository: Path, scale: float, track: Track) -> Iterator[Row]:
    """Classify photographs with retries while faults happen, over each protocol."""
    count = round(IMAGES * scale)
    causes = [(name, protocol) for name in (*FAULTS, *HOLDING) for protocol in ("grpc", "http")]
    for name, protocol in track(causes, len(causes), "faults"):
        with (
            serving(repository) as served,
            under_load(served, protocol, at_least=count) as load,
        ):
            time.sleep(QUIET_SECONDS)
            if name in FAULTS:
                FAULTS[name](served)
            else:
                with HOLDING[name](served):
                    time.sleep(HELD_SECONDS)
            time.sleep(QUIET_SECONDS)
        answered, lost = len(load.answered), len(load.errors)
        result = f"{lost} of {answered + lost:,} images lost, longest gap {load.gap():.1f} s"
        problems = [f"{lost} lost, first {load.errors[0]}"] if lost else []
        if len(load.labels) > 1:
            problems.append("different answers for one image")
        yield Row(f"{name}, over {protocol}", result, tuple(problems))


def bombs(repository: Path, scale: float, track: Track) -> Iterator[Row]:
    """Send the costliest images, one and as many as there are decoders."""
    with serving(repository) as served:
        decoders = len(served.stubs("preprocess"))
        for name, make in track(BOMBS.items(), len(BOMBS), "costly images"):
            for copies in (1, decoders):
                yield _bomb(served, name, make(), copies)


def _bomb(served: Served, name: str, data: bytes, copies: int) -> Row:
    idle = usage(served.process.pid).memory
    with (
        Classifier(served.url("http"), model=served.model, timeout=60) as classifier,
        ThreadPoolExecutor(copies) as pool,
        peak_memory(served.process.pid) as peak,
    ):
        start = time.monotonic()
        outcomes = set(pool.map(partial(_outcome, classifier), [data] * copies))
        seconds = time.monotonic() - start
    above = max(peak[0] - idle, 0)
    result = f"{', '.join(sorted(outcomes))}: {seconds:.1f} s, {above:.0f} MiB above idle"
    is_costly = above > MOST_MEMORY or seconds > MOST_SECONDS * copies
    return Row(f"{copies} of {name}", result, ("too costly",) if is_costly else ())


def _outcome(classifier: Classifier, data: bytes) -> str:
    try:
        classifier.image(data)
    except InvalidImage:
        return "refused"
    except ClientError as error:
        return f"{type(error).__name__}: {error}"
    return "answered"
