"""Handing a port over from one listening socket to another."""

import os
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from scripts.embedded import ServerError, steering
from scripts.embedded.steering import Handover

CONNECTIONS = 40


def listen(port: int = 0) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(CONNECTIONS)
    listening.settimeout(5)
    return listening


@pytest.fixture
def old() -> Iterator[socket.socket]:
    with listen() as listening:
        yield listening


def accepted(*listening: socket.socket, source: socket.socket | None = None) -> list[int]:
    """Connect, and count the connections that each of the sockets got."""
    clients = [source] if source else [socket.socket() for _ in range(CONNECTIONS)]
    counts: Counter[int] = Counter()
    for client in clients:
        client.connect(listening[0].getsockname())
    for index, each in enumerate(listening):
        each.setblocking(False)
        try:
            while True:
                each.accept()[0].close()
                counts[index] += 1
        except BlockingIOError:
            pass
    for client in clients:
        client.close()
    return [counts[index] for index in range(len(listening))]


def test_the_second_process_gets_nothing_but_the_probe_and_then_everything(
    old: socket.socket,
) -> None:
    port = old.getsockname()[1]
    handover = Handover(os.getpid(), [port])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        assert handover.begin(probe.getsockname()[1])
        with listen(port) as new:
            assert accepted(old, new) == [CONNECTIONS, 0]
            assert accepted(old, new, source=probe) == [0, 1]
            handover.finish()
            assert accepted(old, new) == [0, CONNECTIONS]
            old.close()
            assert accepted(new) == [CONNECTIONS]


def test_a_port_can_be_handed_over_again(old: socket.socket) -> None:
    port = old.getsockname()[1]
    for _ in range(3):
        handover = Handover(os.getpid(), [port])
        assert handover.begin(1)
        new = listen(port)
        assert accepted(old, new) == [CONNECTIONS, 0]
        handover.finish()
        assert accepted(old, new) == [0, CONNECTIONS]
        old.close()
        old = new
    old.close()


def test_a_system_that_cannot_direct_connections_is_reported(
    old: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(steering, "SO_ATTACH_REUSEPORT_CBPF", 9999)  # as on another kernel
    assert not Handover(os.getpid(), [old.getsockname()[1]]).begin(1)
    assert "cannot direct connections (" in caplog.text


def test_a_process_that_does_not_listen_is_an_error() -> None:
    with pytest.raises(ServerError, match="cannot see on which sockets"):
        Handover(os.getpid(), [9])
