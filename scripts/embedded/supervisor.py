"""Restarts an embedded server that ends by itself."""

import time
from collections.abc import Callable
from typing import NoReturn

from scripts.embedded.installation import ServerError
from scripts.embedded.server import EmbeddedServer

# A server that ends this often, each time soon after it was ready, does not recover by a restart.
MAX_RESTARTS = 5
STABLE_SECONDS = 10


def supervise(server: EmbeddedServer, report: Callable[[str], None]) -> NoReturn:
    """Restart a started server each time it ends by itself, and report each event in one line.

    Requests in flight are lost when a server ends; clients have to retry them.

    Raises:
        ServerError: MAX_RESTARTS restarts in a row did not keep the server running for
            STABLE_SECONDS.
    """
    restarts = in_a_row = 0
    started = time.monotonic()
    while True:
        ending = server.wait()
        ended = time.monotonic()
        in_a_row = in_a_row + 1 if ended - started < STABLE_SECONDS else 1
        if in_a_row > MAX_RESTARTS:
            raise ServerError(
                f"tritonserver ended with {ending}; giving up after {MAX_RESTARTS} restarts that "
                f"did not keep it running for {STABLE_SECONDS} s"
            )
        restarts += 1
        report(f"tritonserver ended with {ending}; restarting ({restarts})")
        try:
            server.restart()
        except ServerError as error:
            report(str(error))
        else:
            report(f"ready again after {time.monotonic() - ended:.1f} s")
        started = time.monotonic()
