"""Starts the embedded Triton, replaces it, restarts it and stops it."""

import logging
import shlex
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from math import inf
from pathlib import Path

from scripts.embedded import gpu as cuda
from scripts.embedded import guard, probe
from scripts.embedded.access import Access
from scripts.embedded.endpoints import LOOPBACK, Endpoints, resolve
from scripts.embedded.installation import Installation, ServerError, find
from scripts.embedded.metrics import MetricsRelay
from scripts.embedded.pools import pools_of
from scripts.embedded.steering import Handover, has_connection
from scripts.embedded.triton import MODELS, STOP_SECONDS, StartFault, Triton
from scripts.embedded.view import View, view

logger = logging.getLogger(__name__)

ATTEMPTS = 3  # to start a server that crashes or hangs in loading
ABRUPT_SECONDS = 2  # for the requests in flight, where open connections must not stay

BACKENDS = ("python", "onnxruntime", "openvino")
PREFIX_OPTION = "shm-region-prefix-name"  # of a backend: begins the names of its shared memory
LIBRARIES = "libraries"  # in the server's folder: where its processes find the driver
PLAIN_FOLDERS = ("/tmp", "/var/tmp")  # noqa: S108 - if the path of the usual one needs quotes


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
        ready_seconds: how long to wait for readiness; by default as long as loading makes progress.
        verify: whether each version of the repository is compared with its manifest before it is
            loaded.
        gpu: whether graphs run on the machine's NVIDIA GPUs; by default on its CPU, and the server
            does not see a GPU.

    Raises:
        ServerError: the server cannot start, a model does not load, or a GPU is needed and missing.
        UserError: the repository is damaged.
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
        ready_seconds: float = inf,
        verify: bool = False,
        gpu: bool = False,
    ) -> None:
        self.repository = repository
        self.models = models
        self.endpoints = endpoints or Endpoints()
        self.access = access or Access()
        self.arguments = arguments
        self.ready_seconds = ready_seconds
        self.verify = verify
        self.gpu = gpu
        self.log = log
        self._resources = ExitStack()
        self._installation: Installation | None = None
        self._cuda: cuda.Findings | None = None
        self._libraries: list[str] = []
        self._relay: MetricsRelay | None = None
        self._folder = Path()
        self._started = 0  # the number of processes so far
        self._verified: View | None = None
        self._triton: Triton | None = None
        self._retired: list[tuple[Triton, threading.Thread]] = []

    def __enter__(self) -> "EmbeddedServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it is ready."""
        try:
            self._prepare()
            self.restart()
        except BaseException:
            self.stop()
            raise

    @property
    def running(self) -> Triton:
        """The process that serves.

        Raises:
            ServerError: the server is not started.
        """
        if self._triton is None:
            raise ServerError("the server is not started")
        return self._triton

    @property
    def is_finishing(self) -> bool:
        """Whether a process that was replaced still finishes its open connections."""
        return any(thread.is_alive() for _, thread in self._retired)

    @property
    def folder(self) -> Path:
        """The server's temporary folder."""
        return self._folder

    @property
    def gpus(self) -> tuple[str, ...]:
        """The names of the GPUs on which graphs run; empty before the start, and on a CPU."""
        return self._cuda.gpus if self._cuda else ()

    def restart(self) -> None:
        """End what is left of the process that served, and start another on the same ports.

        Raises:
            ServerError: it does not become ready.
            UserError: the repository is damaged.
        """
        self._finish_retired(kill=True)
        if self._triton:
            self._triton.kill()
        self._serve_by(self._launch(lambda _: self.endpoints.are_ready()))

    def replace(self, *, abrupt: bool = False) -> None:
        """Start another process beside the one that serves, and let it take over.

        The new process gets connections when all its ensembles have classified an image. The old
        one serves its open connections for up to 30 s; with `abrupt` it ends after 2 s.

        Raises:
            StartFault: the new process crashes or hangs; the old one goes on.
            ServerError: it does not load or answer; the old one goes on.
            UserError: the repository is damaged; the old process goes on.
        """
        old = self.running
        if not abrupt:
            self._verified = None
        self._finish_retired(kill=abrupt)
        with socket.socket() as through:
            through.bind(("", 0))
            handover = Handover(old.process, (self.endpoints.http, self.endpoints.grpc))
            directs = handover.begin(through.getsockname()[1])
            new = self._launch(lambda triton: handover.is_taken_up(triton.process))
            try:
                if directs:
                    self._check(new, through)
                    handover.finish()
            except BaseException:
                new.kill()
                raise
        self._serve_by(new)
        seconds = ABRUPT_SECONDS if abrupt or not directs else STOP_SECONDS
        thread = threading.Thread(target=old.stop, args=[seconds], daemon=True)
        thread.start()
        self._retired.append((old, thread))

    def stop(self) -> None:
        """Stop the server and its child processes; requests in flight are completed first."""
        try:
            if self._triton:
                self._triton.stop()
            self._finish_retired()
        finally:
            # Also when a second Ctrl-C interrupts the wait.
            self._finish_retired(kill=True)
            self._triton = None
            self._resources.close()

    def _prepare(self) -> None:
        """Create what all processes of this server share."""
        view(self.repository, self.models)
        self._installation = find()
        if self.gpu:
            self._find_gpus(self._installation)
        self.access.check()
        self.endpoints.check_free()
        self._folder = Path(self._resources.enter_context(_temporary_folder()))
        self._resources.enter_context(guard.watching(self._folder))
        self._installation.copy_backends(self._folder / guard.BACKENDS)
        if self._cuda:
            self._libraries.append(str(self._cuda.link(self._folder / LIBRARIES)))
        self.log = self.log or self._folder / "tritonserver.log"
        address = resolve(self.endpoints.addresses["metrics"])
        relay = MetricsRelay(address, self.endpoints.metrics)
        self._relay = self._resources.enter_context(relay.running())

    def _find_gpus(self, installation: Installation) -> None:
        self._libraries = cuda.libraries()
        self._cuda = cuda.find(installation.environment(self._libraries))
        self._cuda.check()

    def _launch(self, is_ready: Callable[[Triton], bool]) -> Triton:
        """Start a process and wait until it is ready."""
        attempt = 1
        while True:
            triton = self._start_process()
            try:
                triton.wait_until(partial(is_ready, triton), seconds=self.ready_seconds)
                if triton.view.is_current():
                    return triton
                raise StartFault(f"{self.repository} changed while it was loaded")
            except BaseException as error:
                triton.kill()
                if not isinstance(error, StartFault) or attempt == ATTEMPTS:
                    raise
                logger.warning("%s; starting it again", error)
            attempt += 1

    def _start_process(self) -> Triton:
        assert self._installation  # noqa: S101 - set by `start`
        assert self.log  # noqa: S101
        chosen = view(self.repository, self.models)
        warnings = cuda.check_models(chosen, gpu=self.gpu)
        if self.verify and chosen != self._verified:
            chosen.verify()
            self._verified = chosen
        self._started += 1
        folder = self._folder / str(self._started)
        folder.mkdir()
        chosen.link(folder / MODELS)
        pools = pools_of(folder / MODELS, gpus=len(self.gpus))
        if self._started == 1:
            for warning in filter(None, [*warnings, pools.warning]):
                logger.warning("%s", warning)
        # Nothing listens on this server's own ports yet; of three others, at least one is free.
        taken = self.endpoints.ports.values()
        free = Endpoints.free(LOOPBACK).ports.values()
        metrics = next(port for port in free if port not in taken)
        prefix = f"{self._folder.name}-{self._started}-"
        options = self._options(self._installation, folder, prefix, metrics)
        environment = self._installation.environment(self._libraries) | {
            "TMPDIR": str(folder),
            # Python must neither write into the model repository nor run a compiled file in it.
            "PYTHONPYCACHEPREFIX": str(self._folder / "pycache"),
            **cuda.variables(gpu=self.gpu),
        }
        return Triton(
            [str(self._installation.executable), *options, *pools.options, *self.arguments],
            environment,
            view=chosen,
            log=self.log,
            folder=folder,
            prefix=prefix,
            metrics=metrics,
        )

    def _options(
        self, installation: Installation, folder: Path, prefix: str, metrics: int
    ) -> list[str]:
        listening = self.endpoints.addresses | {"metrics": LOOPBACK}
        ports = self.endpoints.ports | {"metrics": metrics}
        options = [
            f"--model-repository={folder / MODELS}",
            f"--backend-directory={self._folder / guard.BACKENDS}",
            f"--cache-directory={installation.caches}",
            "--disable-auto-complete-config",
            # A stop waits for the thread that reads the CPU's metrics: by default up to 2 s.
            "--metrics-interval-ms=200",
            "--reuse-http-port=true",
            "--reuse-grpc-port=true",
            *(f"--backend-config={name},{PREFIX_OPTION}={prefix}" for name in BACKENDS),
        ]
        for protocol, port in ports.items():
            # Given a host name, Triton's HTTP server starts without listening anywhere.
            address = resolve(listening[protocol])
            options += [f"--{protocol}-address={address}", f"--{protocol}-port={port}"]
        on_gpu = self._cuda.options if self._cuda else ["--allow-gpu-metrics=false"]
        return [*options, *on_gpu, *self.access.options()]

    def _check(self, new: Triton, through: socket.socket) -> None:
        """Let a new process classify images before clients reach it."""
        port = through.getsockname()[1]
        connection = probe.connection(self.endpoints.at("http"), through)
        probe.greet(connection)  # a repository of other origin has no ensembles to ask
        for model in new.view.ensembles:
            probe.classify(connection, model)
        if not has_connection(new.process, port):
            raise ServerError("Linux does not direct connections to the new server")

    def _serve_by(self, triton: Triton) -> None:
        self._triton = triton
        if self._relay:
            self._relay.source = triton.metrics

    def _finish_retired(self, *, kill: bool = False) -> None:
        """Wait until the processes that were replaced have ended, or kill them."""
        for triton, thread in self._retired:
            if kill:
                triton.kill()
            thread.join()
        self._retired.clear()


def _temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    """Create a folder whose path needs no quotes: the Python backend passes it to a shell."""
    parents = (tempfile.gettempdir(), *PLAIN_FOLDERS)
    plain = next(parent for parent in parents if shlex.quote(parent) == parent)
    return tempfile.TemporaryDirectory(prefix="triton-", dir=plain)
