"""Faults under load: images lost in spite of retries, and the longest time without an answer."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from scripts.embedded.guard import SHARED_MEMORY
from tests import faults, namespaces
from tests.faults import Load, Served, serving, under_load
from tests.reliability.rows import Row, Track

IMAGES = 1_500
QUIET_SECONDS = 1  # before and after a fault
LASTING_SECONDS = 3
PROTOCOLS = ("grpc", "http")
STEPS = ("preprocess", "pixels", "postprocess")


def end_server(served: Served) -> None:
    """End tritonserver with SIGTERM; it waits up to 30 s for open HTTP connections."""
    server = served.triton()
    server.terminate()
    server.wait(60)


FAULTS: dict[str, Callable[[Served], object]] = {
    **{f"{step} process killed": partial(faults.kill_stub, step=step) for step in STEPS},
    "all Python processes killed": faults.kill_all_stubs,
    "preprocess process stopped for 10 s": faults.stop_stub,
    "tritonserver ended by SIGTERM": end_server,
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
    full = {"shared memory full": SHARED_MEMORY, "disk full": repository.parent / "temporary"}
    causes = [(name, protocol) for name in (*FAULTS, *LASTING, *full) for protocol in PROTOCOLS]
    for name, protocol in track(causes, len(causes), "faults"):
        try:
            load = _under(name, full.get(name), repository, protocol, round(IMAGES * scale))
        except pytest.skip.Exception as skipped:
            yield Row(f"{name}, over {protocol}", f"not measured: {skipped.msg}")
        else:
            yield _row(f"{name}, over {protocol}", load)


def _under(name: str, full: Path | None, repository: Path, protocol: str, count: int) -> Load:
    with (
        serving(repository, prefix=_with_small_disk(full) if full else ()) as served,
        under_load(served, protocol, at_least=count) as load,
    ):
        time.sleep(QUIET_SECONDS)
        if name in FAULTS:
            FAULTS[name](served)
        else:
            with _filled(served, full) if full else LASTING[name](served):
                time.sleep(LASTING_SECONDS)
        time.sleep(QUIET_SECONDS)
    return load


def _with_small_disk(folder: Path) -> list[str]:
    """Wrap a server's command so that the folder, with its temporary files, is a small disk."""
    folder.mkdir(exist_ok=True)
    mounting = namespaces.inside(f"mount -t tmpfs -o size=64m none {folder}")
    return mounting if folder == SHARED_MEMORY else [*mounting, "env", f"TMPDIR={folder}"]


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
