"""Keeps a server serving: restarts, replaces or reloads it."""

import logging
import math
import time
from collections.abc import Callable
from typing import NoReturn

from scripts.embedded import control
from scripts.embedded.health import Health
from scripts.embedded.installation import ServerError
from scripts.embedded.server import EmbeddedServer
from scripts.embedded.triton import StartFault
from scripts.errors import UserError

logger = logging.getLogger(__name__)

TICK_SECONDS = 1
# A server that ends this often, each time soon after it was ready, does not recover by a restart.
MAX_RESTARTS = 5
STABLE_SECONDS = 10
# Before the second restart or replacement in a row; doubled each time. The first does not wait.
BACK_OFF_SECONDS = 0.5
MAX_BACK_OFF_SECONDS = 60

# What keeps a server from starting: the repository, or for example a full disk.
EXPECTED = (UserError, OSError)


class BackOff:
    """Counts attempts in a row: each begins less than STABLE_SECONDS after the last one."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def count(self, last: float) -> float:
        """Count an attempt after the one that ended at `last`; return how many seconds to pause."""
        is_stable = time.monotonic() - last >= STABLE_SECONDS
        self.in_a_row = 1 if is_stable else self.in_a_row + 1
        if self.in_a_row == 1:
            return 0.0
        return min(math.ldexp(BACK_OFF_SECONDS, self.in_a_row - 2), MAX_BACK_OFF_SECONDS)


class Supervisor:
    """Keeps a started server serving, and reports each event in one line.

    Requests in flight are lost when a server ends by itself; clients have to retry them.

    Args:
        server: the server; each of its ensembles classifies an image first.
        report: is called with each line.
    """

    def __init__(self, server: EmbeddedServer, report: Callable[[str], None]) -> None:
        self._server = server
        self._report = report
        self._health = Health(server)
        self._restarts = 0
        self._started_at = self._replaceable_at = time.monotonic()
        self._restarting, self._replacing = BackOff(), BackOff()

    def run(self) -> NoReturn:
        """Watch the server for ever.

        Raises:
            ServerError: MAX_RESTARTS restarts in a row did not keep it running for STABLE_SECONDS.
        """
        with control.listen(self._server.folder) as requests:
            while True:
                self._watch(requests)

    def _watch(self, requests: control.Control) -> None:
        """Wait for TICK_SECONDS, and do what an event in this time requires."""
        if ending := self._server.running.wait(TICK_SECONDS):
            self._restart(f"tritonserver ended with {ending}")
        elif not self._server.is_finishing and (client := requests.request()):
            control.answer(client, self._reload())
        elif time.monotonic() >= self._replaceable_at and (fault := self._health.fault()):
            self._replace(fault)

    def _restart(self, why: str) -> None:
        """Start the server again until it is ready."""
        while True:
            self._announce_restart(why)
            start = time.monotonic()
            try:
                self._server.restart()
            except EXPECTED as error:
                why = str(error)
                self._started_at = time.monotonic()
            else:
                self._is_ready(f"ready again after {time.monotonic() - start:.1f} s")
                return

    def _replace(self, why: str) -> None:
        """Let a second process take over, or restart the server if that cannot be started."""
        pause = self._replacing.count(self._replaceable_at)
        self._report(f"{why}; replacing the server")
        start = time.monotonic()
        try:
            self._server.replace(abrupt=True)
        except EXPECTED as error:
            # The memory of a GPU may not be enough for two servers.
            needs_room = bool(self._server.gpus) and isinstance(error, ServerError)
            if needs_room or isinstance(error, StartFault):
                self._restart(str(error))
            else:
                self._report(f"the server is not replaced: {error}")
        else:
            self._is_ready(f"replaced after {time.monotonic() - start:.1f} s")
        self._replaceable_at = time.monotonic() + pause

    def _reload(self) -> control.Answer:
        start = time.monotonic()
        try:
            self._server.replace()
        except EXPECTED as error:
            self._report(f"not reloaded: {error}")
            return control.Answer(done=False, message=str(error))
        view = self._server.running.view
        message = (
            f"serving {', '.join(view.ensembles or view.parts)} from {view.repository} after "
            f"{time.monotonic() - start:.1f} s"
        )
        self._is_ready(f"reloaded: {message}")
        return control.Answer(done=True, message=message)

    def _is_ready(self, line: str) -> None:
        self._started_at = time.monotonic()
        self._health = Health(self._server)
        self._report(line)

    def _announce_restart(self, why: str) -> None:
        """Count a restart, report it and wait, or give up."""
        seconds = self._restarting.count(self._started_at)
        if self._restarting.in_a_row > MAX_RESTARTS:
            raise ServerError(
                f"{why}; giving up after {MAX_RESTARTS} restarts that did not keep it running for "
                f"{STABLE_SECONDS} s"
            )
        self._restarts += 1
        pause = f" in {seconds:g} s" if seconds else ""
        self._report(f"{why}; restarting{pause} ({self._restarts})")
        time.sleep(seconds)
