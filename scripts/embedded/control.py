"""Carries a request to reload from `python -m scripts.reload` to the process of `scripts.serve`.

The socket lies in the server's temporary folder, which only its user can enter. A client sends
nothing; the answer is a JSON object with `done`, whether the new version serves, and `message`.
"""

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from scripts.embedded.installation import ServerError

logger = logging.getLogger(__name__)

NAME = "control"


@dataclass(frozen=True)
class Answer:
    """Whether the new version serves, and one line for the user."""

    done: bool
    message: str


class Control:
    """The server's end: accepts requests without waiting for them."""

    def __init__(self, listening: socket.socket | None) -> None:
        self._listening = listening

    def request(self) -> socket.socket | None:
        """Return the connection of a client that asks for a reload, if there is one."""
        with suppress(OSError):
            return self._listening.accept()[0] if self._listening else None
        return None


@contextmanager
def listen(folder: Path) -> Iterator[Control]:
    """Accept requests for the duration of a `with` block."""
    with socket.socket(socket.AF_UNIX) as listening:
        try:
            listening.bind(str(folder / NAME))
        except OSError as error:  # the path may be too long
            logger.warning("scripts.reload cannot reach this server: %s", error)
            yield Control(None)
            return
        listening.listen()
        listening.setblocking(False)
        yield Control(listening)


def answer(client: socket.socket, reply: Answer) -> None:
    """Answer a client, which may have gone, and close the connection."""
    with client, suppress(OSError):
        client.sendall(json.dumps(asdict(reply)).encode())


def reload(path: str) -> Answer:
    """Ask the server with this socket to reload, and wait for its answer.

    Raises:
        ServerError: the server ended before it answered.
        OSError: it is not reachable.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        with client.makefile() as stream:
            text = stream.read()
    if not text:
        raise ServerError("the server ended while it reloaded")
    return Answer(**json.loads(text))


def find(port: int) -> str:
    """Return the socket of the `scripts.serve` whose tritonserver listens on a TCP port.

    Raises:
        ServerError: there is none, or it belongs to another user.
    """
    for connection in psutil.net_connections("tcp"):
        listens = connection.status == psutil.CONN_LISTEN and port in connection.laddr
        parent = _parent(connection.pid) if listens and connection.pid else None
        for each in parent.net_connections("unix") if parent else ():
            if Path(str(each.laddr)).name == NAME:
                return str(each.laddr)
    raise ServerError(
        f"no scripts.serve of this user serves HTTP on port {port}; name its port with --http-port"
    )


def _parent(process: int) -> psutil.Process | None:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process).parent()
    return None
