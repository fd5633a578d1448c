"""Starts the embedded Triton, waits until it is ready and stops it."""

import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests

from scripts.embedded.installation import Installation, ServerError, find

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
READY_SECONDS = 5  # for one answer to whether it is ready
STOP_SECONDS = 35  # tritonserver itself gives requests in flight 30 seconds

BACKENDS = ("python", "onnxruntime")
# The option for what the names of a backend's shared memory begin with.
SHARED_MEMORY = "shm-region-prefix-name"

# What tritonserver's log says of why it does not start, the most telling line first. A Python
# traceback follows the reason after an escaped newline.
REASONS = [
    re.compile(before + r'(?P<why>[^"\\\n]+)', re.MULTILINE)
    for before in (
        r'model_lifecycle\.cc:\d+\] "(?=failed to load \S+ version)',
        r'model_repository_manager\.cc:\d+\] "',
        r"^error: ",
        r"^\S+: (?=unrecognized option)",
        r"^(?=The server cannot listen)",
    )
]


@dataclass(frozen=True)
class Endpoints:
    """Where a server listens; the three ports are Triton's own unless told."""

    address: str = "127.0.0.1"
    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002

    @classmethod
    def free(cls, address: str = "127.0.0.1") -> "Endpoints":
        """Choose three ports that nothing listens on."""
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for each in sockets:
                each.bind((address, 0))
            return cls(address, *(each.getsockname()[1] for each in sockets))

    @property
    def ports(self) -> dict[str, int]:
        """The port of each protocol, under the name that Triton's options use."""
        return {"http": self.http, "grpc": self.grpc, "metrics": self.metrics}

    @property
    def host(self) -> str:
        """The address that a client on this machine connects to."""
        return "127.0.0.1" if self.address == "0.0.0.0" else self.address  # noqa: S104

    def are_ready(self) -> bool:
        """Ask whether the server and all its models are ready."""
        with requests.Session() as session, suppress(requests.RequestException):
            session.trust_env = False  # a proxy of the environment does not lead to this machine
            url = f"http://{self.host}:{self.http}/v2/health/ready"
            return session.get(url, timeout=READY_SECONDS).ok
        return False

    def check_free(self) -> None:
        """Try to listen on each port.

        Raises:
            ServerError: a port is taken, or the address is not this machine's.
        """
        for protocol, port in self.ports.items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((self.address, port))
                except OSError as error:
                    raise ServerError(
                        f"cannot listen on {self.address}:{port}: {error.strerror}; "
                        f"choose another with --{protocol}-port or --address"
                    ) from error


class EmbeddedServer:
    """A Triton on a model repository, running for the length of a `with` block.

        with EmbeddedServer(Path("model_repository"), endpoints=Endpoints.free()) as server:
            print(server.endpoints.grpc)

    `models` loads only these and what they need, `arguments` go to tritonserver as they are, and
    `log` is the file that takes what it prints (a temporary one unless given).

    Raises:
        ServerError: it cannot start, or the repository does not load.
    """

    def __init__(
        self,
        repository: Path,
        *,
        models: Sequence[str] = (),
        endpoints: Endpoints | None = None,
        arguments: Sequence[str] = (),
        log: Path | None = None,
        ready_seconds: float = 600,
    ) -> None:
        self.repository = repository
        self.models = models
        self.endpoints = endpoints or Endpoints()
        self.arguments = arguments
        self.ready_seconds = ready_seconds
        self.log = log
        self._resources = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "EmbeddedServer":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it is ready."""
        if not any(self.repository.glob("*/config.pbtxt")):
            raise ServerError(
                f"{self.repository} holds no model; make one: python -m scripts.build_repository"
            )
        installation = find()
        self.endpoints.check_free()
        folder = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="triton-")))
        installation.copy_backends(folder / "backends")
        self._resources.callback(_remove_shared_memory, folder.name)
        self.log = self.log or folder / "tritonserver.log"
        command = [str(installation.executable), *self._options(installation, folder)]
        logger.info("starting %s", " ".join(command))
        with self.log.open("ab") as log, _signals_held_back():
            self._process = subprocess.Popen(
                command,
                env=installation.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Its own process group: a Ctrl-C reaches this process only, which then stops the
                # server in order, and whatever the server leaves behind can be found.
                start_new_session=True,
            )
        self._wait_until_ready(self._process)

    def wait(self) -> None:
        """Wait for the server to end by itself, which it does not do while all is well.

        Raises:
            ServerError: it did.
        """
        if self._process:
            exit_code = self._process.wait()
            raise ServerError(f"tritonserver ended by itself, with code {exit_code}")

    def stop(self) -> None:
        """End the server and its children; requests in flight are answered first."""
        process, self._process = self._process, None
        try:
            if process:
                _end(process)
        finally:
            self._resources.close()

    def _plain_path(self, folder: Path) -> Path:
        """Lead around spaces and the like, since the Python backend hands the path to a shell."""
        if shlex.quote(str(self.repository)) == str(self.repository):
            return self.repository
        link = folder / "model_repository"
        link.symlink_to(self.repository.resolve())
        return link

    def _options(self, installation: Installation, folder: Path) -> list[str]:
        options = [
            f"--model-repository={self._plain_path(folder)}",
            f"--backend-directory={folder / 'backends'}",
            f"--cache-directory={installation.caches}",
            "--disable-auto-complete-config",
            *(f"--backend-config={name},{SHARED_MEMORY}={folder.name}" for name in BACKENDS),
        ]
        # Triton's HTTP server takes a name, and then listens nowhere.
        address = socket.gethostbyname(self.endpoints.address)
        for protocol, port in self.endpoints.ports.items():
            options += [f"--{protocol}-address={address}", f"--{protocol}-port={port}"]
        if self.models:
            options.append("--model-control-mode=explicit")
            options += [f"--load-model={model}" for model in self.models]
        return [*options, *self.arguments]

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.ready_seconds
        while process.poll() is None:
            if self.endpoints.are_ready():
                return
            if time.monotonic() > deadline:
                raise ServerError(f"not ready after {self.ready_seconds:.0f} s; see {self.log}")
            time.sleep(POLL_SECONDS)
        raise ServerError(f"cannot serve {self.repository}: {self._why(process.returncode)}")

    def _why(self, exit_code: int) -> str:
        log = self.log.read_text(errors="replace") if self.log and self.log.is_file() else ""
        for reason in REASONS:
            if found := reason.search(log):
                return found["why"]
        return f"tritonserver ended with code {exit_code}"


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Let no handler interrupt the block: a process begun and not yet known could not be ended."""
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread only
        return
    held_back: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: held_back.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if callable(signal.getsignal(number))
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for received in held_back:
            signal.raise_signal(received)


def _remove_shared_memory(prefix: str) -> None:
    """Remove what a server that was killed, or did not load, leaves behind."""
    for region in Path("/dev/shm").glob(f"{prefix}*"):  # noqa: S108 - where Linux shows it
        region.unlink(missing_ok=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.terminate()
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        logger.warning("tritonserver did not end within %d s and is killed", STOP_SECONDS)
    finally:
        # Also when a second Ctrl-C interrupts the wait.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
