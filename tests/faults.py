"""Faults for a server that `python -m scripts.serve` runs, and load that shows their effect.

A fault is a function of a `Served`. `under_load` classifies photographs with retries meanwhile,
and knows afterwards which answers failed and for how long none came.
"""

import itertools
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import tritonclient.grpc

from client import SAMPLE, Classifier, ImageFile, Prediction
from scripts.embedded import Endpoints
from tests.commands import measured
from tests.conftest import ROOT

JPEG = SAMPLE.read_bytes()
RETRIES = 10
RECOVERY_SECONDS = 60  # after which a test fails


@dataclass
class Served:
    """A running `python -m scripts.serve`, and the lines that it has printed so far."""

    process: "subprocess.Popen[str]"
    endpoints: Endpoints
    model: str
    lines: list[str] = field(default_factory=list)

    def url(self, protocol: str) -> str:
        return f"{protocol}://{self.endpoints.at(protocol)}"

    def triton(self) -> psutil.Process:
        """Return the newest tritonserver; a replaced one may still finish its connections."""
        children = psutil.Process(self.process.pid).children()
        started = [each for each in children if each.name() == "tritonserver"]
        return max(started, key=psutil.Process.create_time)

    def stubs(self, step: str = "") -> list[psutil.Process]:
        """Return the Python stubs of a step such as `preprocess`, or all."""
        children = self.triton().children()
        return [each for each in children if f"{self.model}_{step}" in " ".join(each.cmdline())]

    def wait_for(self, text: str, *, after: int = 0) -> str:
        """Wait until a line after the first `after` lines contains a text, and return it."""
        deadline = time.monotonic() + RECOVERY_SECONDS
        while time.monotonic() < deadline:
            for line in self.lines[after:]:
                if text in line:
                    return line
            time.sleep(0.02)
        raise AssertionError(f"no line with {text!r} in {self.lines[after:]}")


@contextmanager
def serving(
    repository: Path, *arguments: str, model: str = "birds", prefix: Sequence[str] = ()
) -> Iterator[Served]:
    """Run `scripts.serve` until the end of the block; `prefix` is a command that runs it."""
    endpoints = Endpoints.free()
    ports = [f"--{protocol}-port={port}" for protocol, port in endpoints.ports.items()]
    command = [*measured("scripts.serve"), f"--model-repository={repository}"]
    process = subprocess.Popen(
        [*prefix, *command, *ports, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    served = Served(process, endpoints, model)
    assert process.stdout
    reader = threading.Thread(target=served.lines.extend, args=[process.stdout], daemon=True)
    reader.start()
    try:
        served.wait_for("Ctrl-C")
        yield served
    finally:
        _end(process)
        reader.join()
        process.stdout.close()


def _end(process: "subprocess.Popen[str]") -> None:
    """End the command, and Triton without the seconds in which it waits for connections."""
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children()
        process.terminate()
        for each in children:
            if each.name() == "tritonserver":
                each.kill()
    process.wait(60)


@dataclass
class Load:
    """What classifying one photograph again and again gave: times, answers and errors."""

    answered: list[float] = field(default_factory=list)
    answers: set[tuple[Prediction, ...]] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    def gap(self) -> float:
        """Return the longest time in seconds without an answer."""
        return max(later - one for one, later in itertools.pairwise(self.answered))


@contextmanager
def under_load(
    served: Served, protocol: str, *, at_least: int = 0, retries: int = RETRIES
) -> Iterator[Load]:
    """Classify photographs during the block, and until `at_least` are done, eight at a time."""
    load, done = Load(), threading.Event()

    def images() -> Iterator[ImageFile]:
        for number in itertools.count():
            if done.is_set() and number >= at_least:
                return
            yield ImageFile(str(number), JPEG)

    def classify() -> None:
        url = served.url(protocol)
        with Classifier(url, model=served.model, retries=retries, timeout=10) as classifier:
            for result in classifier.stream(images()):
                if result.error:
                    load.errors.append(f"{result.source}: {result.error}")
                else:
                    load.answered.append(time.monotonic())
                    load.answers.add(result.predictions)

    thread = threading.Thread(target=classify)
    thread.start()
    try:
        while not load.answered and thread.is_alive():
            time.sleep(0.01)
        yield load
    finally:
        done.set()
        thread.join()


def kill_stub(served: Served, step: str = "preprocess") -> None:
    served.stubs(step)[0].kill()


def kill_all_stubs(served: Served) -> None:
    for stub in served.stubs():
        stub.kill()


def stop_stub(served: Served, step: str = "preprocess", seconds: float = 10) -> None:
    """Stop a stub, as a swapping machine does for a while, and let it go on."""
    stub = served.stubs(step)[0]
    stub.suspend()
    time.sleep(seconds)
    if stub.is_running():
        stub.resume()


def kill_server(served: Served) -> None:
    served.triton().kill()


def stop_server(served: Served) -> None:
    """Stop tritonserver itself: it accepts connections and does not answer."""
    served.triton().suspend()


def send_endless_chunks(served: Served, count: int = 2_000_000) -> None:
    """Send one HTTP request in chunks of one byte, which ends Triton 24.10."""
    head = f"POST /v2/models/{served.model}/infer HTTP/1.1\r\nHost: x\r\n"
    with connection(served, "http") as client:
        client.settimeout(60)
        try:
            client.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            client.sendall(b"1\r\na\r\n" * count + b"0\r\n\r\n")
            client.recv(1000)
        except OSError:
            pass


def cancel_in_bursts(served: Served, count: int = 1_000) -> None:
    """Send gRPC requests and cancel them, which may end Triton 24.10."""
    image = tritonclient.grpc.InferInput("IMAGE", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[JPEG]], np.object_))
    with tritonclient.grpc.InferenceServerClient(served.endpoints.at("grpc")) as client:
        for _ in range(count):
            client.async_infer(served.model, [image], lambda **_: None).cancel()


@contextmanager
def idle_connections(served: Served, count: int) -> Iterator[None]:
    """Hold connections over HTTP and gRPC on which nothing is sent."""
    with ExitStack() as stack:
        for number in range(count):
            stack.enter_context(connection(served, ("http", "grpc")[number % 2]))
        yield


def vanish(served: Served, count: int) -> None:
    """Send HTTP requests, and reset each connection before the answer, or within the request."""
    request = infer_request(served)
    for number in range(count):
        with connection(served, "http") as client:
            client.sendall(request[: None if number % 2 else len(request) // 2])
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def slow_readers(served: Served, count: int) -> Iterator[None]:
    """Send requests on connections whose responses are not read."""
    request = infer_request(served)
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(connection(served, "http")).sendall(request * 20)
        yield


def infer_request(served: Served) -> bytes:
    """Return the bytes of an HTTP request that classifies the photograph."""
    head = (
        f"POST /v2/models/{served.model}/infer HTTP/1.1\r\nHost: x\r\n"
        f"Inference-Header-Content-Length: 0\r\nContent-Length: {len(JPEG)}\r\n\r\n"
    )
    return head.encode() + JPEG


def connection(served: Served, protocol: str) -> socket.socket:
    host, _, port = served.endpoints.at(protocol).rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)
