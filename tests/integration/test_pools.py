"""Little shared memory: large requests are refused while it is full, ordinary ones are not."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from client import Classifier
from scripts.embedded import Endpoints
from tests import images, namespaces
from tests.conftest import ROOT
from tests.integration.conftest import HASTE

PHOTO = images.encode(images.noise(700, 700, seed=1), "BMP")  # 1.5 MB
BATCH = 12


MEMORY = "64m"  # of /dev/shm, as by default in a container


@dataclass(frozen=True)
class Confined:
    """A server with little shared memory: its address and its /dev/shm."""

    address: str
    memory: Path

    def classify(self, count: int, *, batch_size: int = 1, concurrency: int = 1) -> Counter[str]:
        """Count the results: "classified" and the messages of errors."""
        with Classifier(self.address, model="birds", retries=0, timeout=60) as classifier:
            photos = [PHOTO] * count
            results = classifier.stream(photos, batch_size=batch_size, concurrency=concurrency)
            return Counter(str(each.error or "classified") for each in results)


@pytest.fixture
def confined(small_repository: Path) -> Iterator[Confined]:
    endpoints = Endpoints.free()
    ports = [f"--{protocol}-port={port}" for protocol, port in endpoints.ports.items()]
    command = [sys.executable, "-m", "scripts.serve", f"--model-repository={small_repository}"]
    mount = f"mount -t tmpfs -o size={MEMORY} none /dev/shm"
    with subprocess.Popen(
        namespaces.inside(mount, *command, *ports, "--", *HASTE),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout
        try:
            assert any("ready" in line for line in iter(server.stdout.readline, ""))
            yield Confined(
                f"grpc://127.0.0.1:{endpoints.grpc}", Path(f"/proc/{server.pid}/root/dev/shm")
            )
        finally:
            server.terminate()
            server.communicate(timeout=60)


def fill(file: Path) -> None:
    """Use up all that is left of a file system."""
    with file.open("wb", buffering=0) as rest, suppress(OSError):
        while True:
            rest.write(bytes(1 << 20))


def test_full_shared_memory_refuses_only_large_requests_and_only_while_it_is_full(
    confined: Confined,
) -> None:
    fill(confined.memory / "rest")
    (refusal,) = confined.classify(BATCH, batch_size=BATCH)
    assert "Failed to increase the shared memory pool" in refusal
    assert confined.classify(30) == {"classified": 30}
    (confined.memory / "rest").unlink()
    assert confined.classify(BATCH, batch_size=BATCH) == {"classified": BATCH}


def test_single_images_are_classified_after_an_overload_of_large_requests(
    confined: Confined,
) -> None:
    answers = confined.classify(24 * BATCH, batch_size=BATCH, concurrency=8)
    del answers["classified"]
    assert answers
    assert all("Failed to increase the shared memory pool" in message for message in answers)
    assert confined.classify(100) == {"classified": 100}
