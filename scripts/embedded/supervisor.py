"""Restarts an embedded server that ends by itself."""

import time
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from scripts.embedded.installation import ServerError
from scripts.embedded.server import EmbeddedServer

# A server that ends more often than this does not recover by being restarted.
MAX_RESTARTS = 5
WINDOW_SECONDS = 60


def supervise(server: EmbeddedServer, report: Callable[[str], None]) -> NoReturn:
    """Restart a started server each time it ends by itself, and report each event in one line.

    Requests in flight are lost when a server ends; clients have to retry them.

    Raises:
        ServerError: the server ended again after MAX_RESTARTS restarts within WINDOW_SECONDS.
    """
    restarts: deque[float] = deque(maxlen=MAX_RESTARTS)
    number = 0
    while True:
        ending = server.wait()
        now = time.monotonic()
        if len(restarts) == MAX_RESTARTS and now - restarts[0] < WINDOW_SECONDS:
            raise ServerError(
                f"tritonserver ended with {ending}; "
                f"giving up after {MAX_RESTARTS} restarts within {WINDOW_SECONDS} s"
            )
        restarts.append(now)
        number += 1
        report(f"tritonserver ended with {ending}; restarting ({number})")
        try:
            server.restart()
        except ServerError as error:
            report(str(error))
        else:
            report(f"ready again after {time.monotonic() - now:.1f} s")
