"""One process of tritonserver, from its start until nothing of it is left."""

import logging
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from scripts.embedded.guard import remove_shared_memory
from scripts.embedded.installation import ServerError
from scripts.embedded.progress import Progress
from scripts.embedded.view import View

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
STALLED_SECONDS = 10
MODELS = "model_repository"  # the folder with links to what a process loads
STOP_SECONDS = 35  # tritonserver waits up to 30 seconds for open connections

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
        r'main\.cc:\d+\] "(?=failed to start )',
    )
]
# A reason that is not the repository's: a Python stub did not respond for a second.
UNHEALTHY = "is not healthy"


class StartFault(ServerError):
    """tritonserver crashed or hung while it loaded; another attempt may succeed."""


class Triton:
    """A tritonserver with its child processes, shared memory and folder.

    Args:
        command: the executable and its options.
        environment: the environment variables.
        view: what it loads.
        log: the file that its output is appended to.
        folder: its folder, which is removed with it.
        prefix: the beginning of the names of its shared memory.
        metrics: its port for metrics.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        *,
        view: View,
        log: Path,
        folder: Path,
        prefix: str,
        metrics: int,
    ) -> None:
        self.view = view
        self.metrics = metrics
        self._log = log
        self._log_start = 0
        self._folder = folder
        self._prefix = prefix
        logger.info("starting %s", " ".join(command))
        with log.open("ab") as output, _signals_deferred():
            self._log_start = output.tell() if output.seekable() else 0
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # With a process group of its own, Ctrl-C reaches only this process, which then
                # stops the server in order, and orphaned child processes can be found.
                start_new_session=True,
            )

    @property
    def process(self) -> int:
        """The process id of tritonserver."""
        return self._process.pid

    def wait(self, seconds: float | None = None) -> str | None:
        """Wait until it ends by itself.

        Returns:
            How it ended, for example `signal SIGFPE` or `exit code 1`; None after `seconds`.
        """
        try:
            return _ending(self._process.wait(seconds))
        except subprocess.TimeoutExpired:
            return None

    def wait_until(self, is_ready: Callable[[], bool], *, seconds: float) -> None:
        """Wait until the server is ready.

        Raises:
            StartFault: it crashed, or makes no progress.
            ServerError: a model does not load, an option is wrong, or `seconds` have passed.
        """
        deadline = time.monotonic() + seconds
        progress = Progress(self.process, self._log)
        while not is_ready():
            if ending := self.wait(POLL_SECONDS):
                raise self._failure(ending)
            if progress.stalled() > STALLED_SECONDS:
                raise StartFault(f"tritonserver hangs in loading: idle for {STALLED_SECONDS} s")
            if time.monotonic() > deadline:
                raise ServerError(f"not ready after {seconds:.0f} s; see {self._log}")

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop the server; requests in flight are completed first, for at most `seconds`."""
        try:
            self._process.terminate()
            if not self.wait(seconds):
                logger.info("tritonserver did not end within %.0f s and is killed", seconds)
        finally:
            self.kill()  # also when a second Ctrl-C interrupts the wait

    def kill(self) -> None:
        """Kill what is left of the process group, and remove its shared memory and folder."""
        with suppress(ProcessLookupError):
            os.killpg(self.process, signal.SIGKILL)
        self._process.wait()
        remove_shared_memory(self._prefix)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _failure(self, ending: str) -> ServerError:
        why = self._why()
        if UNHEALTHY in why or (ending.startswith("signal") and not why):
            return StartFault(f"tritonserver ended with {ending} in loading")
        why = why or f"tritonserver ended with {ending}"
        return ServerError(f"cannot serve {self.view.repository}: {why}")

    def _why(self) -> str:
        """Find the reason in the part of the log that this process wrote."""
        if not self._log.is_file():
            return ""
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            text = file.read().decode(errors="replace")
        text = text.replace(f"{self._folder}/{MODELS}", str(self.view.repository))
        found = (reason.search(text) for reason in REASONS)
        return next((each["why"] for each in found if each), "")


def _ending(exit_code: int) -> str:
    """Describe the exit code of `Popen`, which is the negative number of a signal."""
    return (
        f"signal {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
    )


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Deliver signals only after the block, when the process that it starts can be found."""
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
