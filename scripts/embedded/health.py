"""Tells whether a running server works, beyond what its health endpoint knows."""

import http.client
import logging
import re
import time
from contextlib import closing
from pathlib import Path

import psutil

from scripts.embedded import metrics, probe
from scripts.embedded.installation import ServerError
from scripts.embedded.progress import family
from scripts.embedded.server import EmbeddedServer

logger = logging.getLogger(__name__)

PROBE_SECONDS = 5
FAILED_PROBES = 3  # in a row
SUCCESSES = re.compile(rb"^nv_inference_request_success{.*} (\d+)", re.MULTILINE)
# Triton's Python backend logs this when pixels do not reach the graph, and then sends a response
# all the same (`LoadGPUBuffers` in src/pb_stub.cc of releases 24.10 to 26.06).
LOST_PIXELS = b"An error occurred while trying to load GPU buffers"


class GpuLog:
    """Finds in the log of a server on GPUs that its answers are wrong.

    What is already in it may be of an earlier server.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._position = log.stat().st_size if log.is_file() else 0

    def check(self) -> None:
        """Read the lines that are new.

        Raises:
            ServerError: pixels were lost.
        """
        if not self._log.is_file():  # but a terminal, for example
            return
        with self._log.open("rb") as file:
            file.seek(self._position)
            new = file.read()
        if LOST_PIXELS in new:
            raise ServerError(
                "pixels do not pass between the server's processes (CUDA IPC), so that answers are "
                f"wrong; see {self._log}, or build the repository with --preprocess cpu"
            )
        self._position += new.rfind(b"\n") + 1


class Health:
    """Watches the process of a server that serves at the moment.

    Triton 24.10 stays ready when one of its Python stubs has ended, and aborts when a stopped one
    continues: the process table shows both. Whatever else hangs shows in the number of requests
    that succeed; while that does not grow, an ensemble has to classify an image.
    """

    def __init__(self, server: EmbeddedServer) -> None:
        self._at = server.endpoints.at("http")
        self._metrics = server.running.metrics
        self._gpu_log = GpuLog(server.log) if server.gpus and server.log else None
        self._processes = family(server.running.process)  # tritonserver and its stubs
        self._stopped: set[psutil.Process] = set()
        self._ensembles = [each for each in server.running.view.ensembles if self._can_answer(each)]
        self._successes = 0
        self._failed = 0
        self._probe_at = time.monotonic() + PROBE_SECONDS

    def fault(self) -> str | None:
        """Look once, and describe what is wrong, if anything is; call it about once a second.

        Raises:
            ServerError: answers are wrong, and would be wrong in another process.
        """
        if self._gpu_log:
            self._gpu_log.check()
        states = {each: _state(each) for each in self._processes}
        self._kill_stopped(states)
        for stub in self._processes[1:]:
            if states[stub] in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}:
                return f"Python stub {stub.pid} has ended"
        return self._probe_fault()

    def _kill_stopped(self, states: dict[psutil.Process, str]) -> None:
        """Kill what is stopped for the second time in a row: it does not work, and must not go on.

        That it has ended shows the next time; the supervisor notices the end of tritonserver.
        """
        before = self._stopped
        self._stopped = {each for each in states if states[each] == psutil.STATUS_STOPPED}
        for process in before & self._stopped:
            logger.warning("process %d is stopped and is killed", process.pid)
            process.kill()

    def _probe_fault(self) -> str | None:
        """Find that several probes in a row failed while no request succeeded."""
        now = time.monotonic()
        if now < self._probe_at:
            return None
        self._probe_at = now + PROBE_SECONDS
        before, self._successes = self._successes, self._count_successes()
        if self._successes > before or not self._ensembles:
            self._failed = 0
            return None
        ensemble = self._ensembles.pop(0)
        self._ensembles.append(ensemble)
        error = self._probe(ensemble)
        self._failed = self._failed + 1 if error else 0
        return str(error) if self._failed == FAILED_PROBES else None

    def _can_answer(self, ensemble: str) -> bool:
        """Return whether a probe tells anything; a model of the user's own may refuse the image."""
        error = self._probe(ensemble)
        if error is None or error.status in {0, http.HTTPStatus.SERVICE_UNAVAILABLE}:
            return True
        logger.warning("%s; it is not watched", error)
        return False

    def _probe(self, ensemble: str) -> probe.ProbeError | None:
        with closing(probe.connection(self._at)) as connection:
            try:
                probe.classify(connection, ensemble)
            except probe.ProbeError as error:
                return error
        return None

    def _count_successes(self) -> int:
        try:
            _, _, text = metrics.fetch(self._metrics)
        except (OSError, http.client.HTTPException):
            return self._successes
        return sum(map(int, SUCCESSES.findall(text)))


def _state(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_DEAD)
