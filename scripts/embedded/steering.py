"""Decides which of two servers that listen on the same port gets the new connections.

With SO_REUSEPORT several processes of one user listen on a port, and Linux spreads new connections
over their sockets, which it keeps in the order in which they began to listen. A classic BPF program
(socket(7), SO_ATTACH_REUSEPORT_CBPF) chooses the index of the socket instead. Any socket of the
group may set the program, and it stays when that socket is closed: this module listens for the
moment that it needs to set it, always as the last of the group.

A stopping tritonserver resets new HTTP connections as long as it still serves open ones. Directing
new connections to its successor first avoids that.
"""

import ctypes
import logging
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import psutil

from scripts.embedded.installation import ServerError

logger = logging.getLogger(__name__)

SO_ATTACH_REUSEPORT_CBPF = 51  # asm-generic/socket.h

# Instructions of classic BPF, linux/bpf_common.h and linux/filter.h.
LOAD_WORD = 0x20
LOAD_HALF = 0x28
ADD = 0x04
MODULO = 0x94
JUMP_IF_EQUAL = 0x15
RETURN_ACCUMULATOR = 0x16
RANDOM_NUMBER = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM
NETWORK_HEADER = 0xFFF00000  # SKF_NET_OFF
SOURCE_PORT = NETWORK_HEADER + 20  # of TCP, after an IPv4 header without options

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


class Handover:
    """Hands ports over from one process to a second one that begins to listen on them.

    Args:
        old: the process that listens, as the only one.
        ports: the TCP ports.

    Raises:
        ServerError: the process does not listen, or its sockets are not accessible.
    """

    def __init__(self, old: int, ports: Iterable[int]) -> None:
        found = {port: listening(old, port) for port in ports}
        self._sockets = {port: sockets for port, sockets in found.items() if sockets}
        if not self._sockets:
            raise ServerError(f"cannot see on which sockets process {old} listens")

    def begin(self, probe: int) -> bool:
        """Give the second process only connections from the TCP port `probe`.

        Returns:
            Whether the system can do this.
        """
        try:
            for sockets in self._sockets.values():
                old, new = _any_of(0, len(sockets)), _any_of(len(sockets), len(sockets))
                from_probe = (JUMP_IF_EQUAL, 0, len(new), probe)
                _direct(sockets[0], [(LOAD_HALF, 0, 0, SOURCE_PORT), from_probe, *new, *old])
        except OSError as error:
            logger.warning(
                "cannot direct connections (%s): for two seconds some will be reset", error
            )
            return False
        return True

    def is_taken_up(self, new: int) -> bool:
        """Return whether the second process listens on all ports."""
        return all(listening(new, port) for port in self._sockets)

    def finish(self) -> None:
        """Give the second process all new connections.

        Linux spreads them over the sockets that are left when the first process ends, since the
        index is then out of range.
        """
        for sockets in self._sockets.values():
            _direct(sockets[0], _any_of(len(sockets), len(sockets)))


def listening(process: int, port: int) -> list[Any]:
    """Return psutil's description of each socket on which a process listens at a port."""
    return [
        each
        for each in _connections(process)
        if each.status == psutil.CONN_LISTEN and each.laddr.port == port
    ]


def has_connection(process: int, source: int) -> bool:
    """Return whether a process has a connection from a TCP port."""
    return any(each.raddr and each.raddr.port == source for each in _connections(process))


def _connections(process: int) -> list[Any]:
    try:
        return list(psutil.Process(process).net_connections("tcp"))
    except psutil.Error:  # it has ended
        return []


def _any_of(first: int, count: int) -> list[Instruction]:
    """Return the instructions that choose one of `count` sockets at random, from index `first`."""
    return [
        (LOAD_WORD, 0, 0, RANDOM_NUMBER),
        (MODULO, 0, 0, count),
        (ADD, 0, 0, first),
        (RETURN_ACCUMULATOR, 0, 0, 0),
    ]


def _direct(like: Any, program: Sequence[Instruction]) -> None:  # noqa: ANN401
    """Set the program of the group that the socket `like` belongs to."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions and their address.
    filter_program = struct.pack("HP", len(program), ctypes.addressof(buffer))
    with socket.socket(like.family) as member:
        member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        member.bind(tuple(like.laddr))
        member.listen()
        member.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, filter_program)
