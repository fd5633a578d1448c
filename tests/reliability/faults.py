"""Faults under load, and images that are costly to decode."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

from client import SAMPLE, Classifier, ClientError, InvalidImage, ServerUnavailable
from tests import faults, namespaces
from tests.bombs import BOMBS
from tests.faults import Load, Served, serving, under_load
from tests.reliability.rows import Row, Track
from tests.reliability.usage import peak_memory, usage

IMAGES = 1_500
QUIET_SECONDS = 1  # before and after a fault
LASTING_SECONDS = 3
MOST_MEMORY = 1024  # MiB above the idle server
MOST_SECONDS = 5.0
PROTOCOLS = ("grpc", "http")
OUTCOMES = {InvalidImage: "refused", ServerUnavailable: "asked to try again"}
STEPS = ("preprocess", "pixels", "postprocess")

FAULTS: dict[str, Callable[[Served], object]] = {
    **{f"{step} process killed": partial(faults.kill_stub, step=step) for step in STEPS},
    "all Python processes killed": faults.kill_all_stubs,
    "preprocess process stopped for 10 s": faults.stop_stub,
    "tritonserver ended by SIGTERM": lambda served: served.triton().terminate(),
    "tritonserver killed": faults.kill_server,
    "tritonserver stopped": faults.stop_server,
    "two million chunks of one byte": faults.send_endless_chunks,
    "1,000 gRPC requests cancelled": faults.cancel_in_bursts,
    "1,000 connections reset": partial(faults.vanish, count=1_000),
}
LASTING: dict[str, Callable[[Served], AbstractContextManager[None]]] = {
    "1,000 idle connections": partial(faults.idle_connections, count=1_000),
    "50 connections that read nothing": partial(faults.slow_readers, count=50),
}


def under_faults(repository: Path, scale: float, track: Track) -> Iterator[Row]:
    """Classify photographs with retries while faults happen, over each protocol."""
    full = {"shared memory full": Path("/dev/shm"), "disk full": repository.parent / "temporary"}
    causes = [(name, protocol) for name in (*FAULTS, *LASTING, *full) for protocol in PROTOCOLS]
    for name, protocol in track(causes, len(causes), "faults"):
        folder = full.get(name)
        prefix = _with_small_disk(folder) if folder else ()
        count = round(IMAGES * scale)
        with (
            serving(repository, prefix=prefix) as served,
            under_load(served, protocol, at_least=count) as load,
        ):
            time.sleep(QUIET_SECONDS)
            if name in FAULTS:
                FAULTS[name](served)
            else:
                with _filled(served, folder) if folder else LASTING[name](served):
                    time.sleep(LASTING_SECONDS)
            time.sleep(QUIET_SECONDS)
        yield _row(f"{name}, over {protocol}", load)


def _with_small_disk(folder: Path) -> list[str]:
    """Wrap a command so that a folder, and all temporary files, are on a small disk of its own."""
    folder.mkdir(exist_ok=True)
    mounting = namespaces.inside(f"mount -t tmpfs -o size=64m none {folder}")
    return [*mounting, "env", f"TMPDIR={folder}"]


@contextmanager
def _filled(served: Served, folder: Path) -> Iterator[None]:
    """Use up all that is left of the server's small disk."""
    rest = Path(f"/proc/{served.process.pid}/root", folder.relative_to("/"), "rest")
    with rest.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    yield
    rest.unlink()


def _row(tried: str, load: Load) -> Row:
    answered, lost = len(load.answered), len(load.errors)
    problems = [f"first lost: {load.errors[0]}"] if lost else []
    if len(load.answers) > 1:
        problems.append("different answers for one image")
    result = f"{lost} of {answered + lost:,} images lost, longest gap {load.gap():.1f} s"
    return Row(tried, result, tuple(problems))


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
