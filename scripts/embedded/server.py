"""Starts the embedded Triton, waits until it is ready, restarts it and stops it."""

import ipaddress
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

from scripts.embedded.access import Access
from scripts.embedded.installation import Installation, ServerError, find

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
POLL_SECONDS = 0.1
READY_SECONDS = 5  # timeout of one readiness request
STOP_SECONDS = 35  # tritonserver waits up to 30 seconds for requests in flight

BACKENDS = ("python", "onnxruntime")
# The backend option that sets the prefix of its shared memory names, and where Linux shows them.
PREFIX_OPTION = "shm-region-prefix-name"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108

# Lines of tritonserver's log that explain a failed start, the most specific first. In the log a
# Python traceback follows the reason after an escaped newline.
REASONS = [
    re.compile(before + r'(?P<why>[^"\\\n]+)', re.MULTILINE)
    for before in (
        r'model_lifecycle\.cc:\d+\] "(?=failed to load \S+ version)',
        r'model_repository_manager\.cc:\d+\] "',
        r"^error: ",
        r"^\S+: (?=unrecognized option)",
        r"^(?=restricted (api|protocol) )",
        r"^(?=The server cannot listen)",
    )
]


@dataclass(frozen=True)
class Endpoints:
    """The addresses and the three ports of a server; the default ports are Triton's.

    Attributes:
        address: the address to listen on; 0.0.0.0 for all networks.
        http: the port for HTTP.
        grpc: the port for gRPC.
        metrics: the port for metrics.
        http_address: the address for HTTP; `address` by default.
        metrics_address: the address for metrics; `address` by default, but only within this
            machine.
    """

    address: str = LOOPBACK
    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002
    http_address: str | None = None
    metrics_address: str | None = None

    @classmethod
    def free(cls, address: str = LOOPBACK) -> "Endpoints":
        """Choose three ports that nothing listens on."""
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for each in sockets:
                each.bind((address, 0))
            return cls(address, *(each.getsockname()[1] for each in sockets))

    @property
    def ports(self) -> dict[str, int]:
        """The port of each protocol, keyed by the protocol's name in Triton's options."""
        return {"http": self.http, "grpc": self.grpc, "metrics": self.metrics}

    @property
    def addresses(self) -> dict[str, str]:
        """The address of each protocol, keyed as `ports`."""
        local = self.address if is_loopback(self.address) else LOOPBACK
        return {
            "http": self.http_address or self.address,
            "grpc": self.address,
            "metrics": self.metrics_address or local,
        }

    def at(self, protocol: str) -> str:
        """Return HOST:PORT where a client on this machine reaches a protocol."""
        address = self.addresses[protocol]
        host = LOOPBACK if address == "0.0.0.0" else address  # noqa: S104
        return f"{host}:{self.ports[protocol]}"

    def are_ready(self) -> bool:
        """Return whether the server and all its models are ready."""
        with requests.Session() as session, suppress(requests.RequestException):
            session.trust_env = False  # never send a local request through a proxy
            url = f"http://{self.at('http')}/v2/health/ready"
            return session.get(url, timeout=READY_SECONDS).ok
        return False

    def check_free(self) -> None:
        """Try to listen on each port.

        Raises:
            ServerError: a port is in use, or the address does not belong to this machine.
        """
        for protocol, port in self.ports.items():
            address = self.addresses[protocol]
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, port))
                except OSError as error:
                    raise ServerError(
                        f"cannot listen on {address}:{port}: {error.strerror}; "
                        f"choose another with --{protocol}-port or --address"
                    ) from error


class EmbeddedServer:
    """A Triton that serves a model repository for the duration of a `with` block.

        with EmbeddedServer(Path("model_repository"), endpoints=Endpoints.free()) as server:
            print(server.endpoints.grpc)

    Args:
        repository: the model repository.
        models: the models to load, with the models that they need; all by default.
        endpoints: where to listen; Triton's default ports by default.
        access: what clients have to show; by default nothing, and nobody can use the restricted
            APIs.
        arguments: further options for tritonserver.
        log: the file that receives tritonserver's output; a temporary file by default.
        ready_seconds: how long to wait for readiness.

    Raises:
        ServerError: the server cannot start, or a model does not load.
    """

    def __init__(
        self,
        repository: Path,
        *,
        models: Sequence[str] = (),
        endpoints: Endpoints | None = None,
        access: Access | None = None,
        arguments: Sequence[str] = (),
        log: Path | None = None,
        ready_seconds: float = 600,
    ) -> None:
        self.repository = repository
        self.models = models
        self.endpoints = endpoints or Endpoints()
        self.access = access or Access()
        self.arguments = arguments
        self.ready_seconds = ready_seconds
        self.log = log
        self._resources = ExitStack()
        self._command: list[str] = []
        self._environment: dict[str, str] = {}
        self._prefix = ""  # of the names of the server's shared memory
        self._log_start = 0  # where the running process's part of the log starts
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
                f"{self.repository} contains no model; "
                "build one: python -m scripts.build_repository"
            )
        installation = find()
        self.access.check()
        self.endpoints.check_free()
        folder = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="triton-")))
        installation.copy_backends(folder / "backends")
        self.log = self.log or folder / "tritonserver.log"
        self._prefix = folder.name
        self._command = [str(installation.executable), *self._options(installation, folder)]
        self._environment = installation.environment()
        self._launch()

    def wait(self) -> str:
        """Wait until the server ends by itself.

        Returns:
            How it ended, for example `signal SIGFPE` or `exit code 1`.

        Raises:
            ServerError: the server is not started.
        """
        if self._process is None:
            raise ServerError("the server is not started")
        return _ending(self._process.wait())

    def restart(self) -> None:
        """Start the server again on the same ports after it ended by itself.

        What the ended process left behind is removed first: child processes and shared memory.

        Raises:
            ServerError: it does not become ready. `wait` then returns how it ended.
        """
        self._clean_up()
        self._launch()

    def stop(self) -> None:
        """Stop the server and its child processes; requests in flight are completed first."""
        try:
            if self._process and self._process.poll() is None:
                self._process.terminate()
                self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("tritonserver did not end within %d s and is killed", STOP_SECONDS)
        finally:
            # Also when a second Ctrl-C interrupts the wait.
            self._clean_up()
            self._resources.close()

    def _launch(self) -> None:
        assert self.log is not None  # noqa: S101 - set by `start`
        logger.info("starting %s", " ".join(self._command))
        with self.log.open("ab") as log, _signals_deferred():
            self._log_start = log.tell() if log.seekable() else 0
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # With a process group of its own, Ctrl-C reaches only this process, which then
                # stops the server in order, and orphaned child processes can be found.
                start_new_session=True,
            )
        self._wait_until_ready(self._process)

    def _clean_up(self) -> None:
        """Kill the rest of the process group and remove its shared memory."""
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for region in SHARED_MEMORY.glob(f"{self._prefix}*"):
                region.unlink(missing_ok=True)
            self._process = None

    def _plain_path(self, folder: Path) -> Path:
        """Avoid spaces and quotes in the path, since the Python backend passes it to a shell."""
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
            *(f"--backend-config={name},{PREFIX_OPTION}={folder.name}" for name in BACKENDS),
        ]
        for protocol, port in self.endpoints.ports.items():
            # Given a host name, Triton's HTTP server starts without listening anywhere.
            address = resolve(self.endpoints.addresses[protocol])
            options += [f"--{protocol}-address={address}", f"--{protocol}-port={port}"]
        if self.models:
            options.append("--model-control-mode=explicit")
            options += [f"--load-model={model}" for model in self.models]
        return [*options, *self.access.options(), *self.arguments]

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.ready_seconds
        while process.poll() is None:
            if self.endpoints.are_ready():
                return
            if time.monotonic() > deadline:
                process.kill()
                raise ServerError(f"not ready after {self.ready_seconds:.0f} s; see {self.log}")
            time.sleep(POLL_SECONDS)
        raise ServerError(f"cannot serve {self.repository}: {self._why(process.returncode)}")

    def _why(self, exit_code: int) -> str:
        log = b""
        if self.log and self.log.is_file():
            log = self.log.read_bytes()[self._log_start :]
        for reason in REASONS:
            if found := reason.search(log.decode(errors="replace")):
                return found["why"]
        return f"tritonserver ended with {_ending(exit_code)}"


def resolve(host: str) -> str:
    """Return the IPv4 address of a host name, or an address as it is.

    Raises:
        ServerError: the name is unknown.
    """
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise ServerError(f"cannot listen on {host}: {error.strerror}") from error


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address or the one of a host name."""
    return ipaddress.ip_address(resolve(host)).is_loopback


def _ending(exit_code: int) -> str:
    """Describe the exit code of `Popen`, which is the negative number of a signal."""
    return (
        f"signal {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
    )


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Deliver signals only after the block, so that a process just started is not lost."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signal handlers run in the main thread only
        return
    deferred: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: deferred.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if callable(signal.getsignal(number))  # an ignored signal stays ignored
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for received in deferred:
            signal.raise_signal(received)
