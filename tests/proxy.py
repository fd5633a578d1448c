"""Proxies between client and server: HAProxy, and a TCP relay that counts bytes."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

CONFIGURATION = """\
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend tls
    bind 127.0.0.1:{port} ssl crt {certificate}{verify}
{rules}
    default_backend triton
backend triton
    server triton 127.0.0.1:{backend}
"""


@contextmanager
def haproxy(
    folder: Path, backend: int, certificate: Path, *, ca: Path | None = None, rules: str = ""
) -> Iterator[int]:
    """Terminate TLS in front of an HTTP port; yield the port. `ca` verifies client certificates."""
    executable = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if not executable:
        pytest.skip("haproxy is not installed: apt-get install haproxy")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    verify = f" ca-file {ca} verify required" if ca else ""
    file = folder / "haproxy.cfg"
    file.write_text(
        CONFIGURATION.format(
            port=port, certificate=certificate, verify=verify, backend=backend, rules=rules
        )
    )
    process = subprocess.Popen([executable, "-q", "-db", "-f", str(file)])
    try:
        _wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


class Relay:
    """Forwards TCP connections to a local port and counts the bytes sent to it.

    A change of `target` applies to new connections, as when a server replaces another.
    """

    def __init__(self, port: int) -> None:
        self.sent = 0
        self.target = ("127.0.0.1", port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.port = self._listening.getsockname()[1]

    def __enter__(self) -> "Relay":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._listening, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):  # accept() fails when the socket is closed
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(self.target)
                self._ends += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(*ends, ends[1] is far)).start()

    def _forward(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self.sent += len(data) * counted
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)
