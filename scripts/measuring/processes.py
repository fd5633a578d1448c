"""The processes of a Triton on this machine, and the CPU time that each has used."""

from collections.abc import Iterable
from contextlib import suppress

import psutil

SERVER = "tritonserver"


def find(port: int) -> psutil.Process | None:
    """Find the tritonserver of this machine that listens on a TCP port, if it is to be seen."""
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == SERVER and _listens(process, port):
            return process
    return None


def cpu_seconds(server: psutil.Process, parts: Iterable[str]) -> dict[str, float]:
    """Add up user and system time of the server itself, and of the processes of each part.

    The Python backend runs each instance of a part as a child of the server, whose command line
    holds the part's folder. A part without such a process is left out.
    """
    used = {SERVER: _seconds(server)}
    children = {child: _command(child) for child in server.children(recursive=True)}
    for part in parts:
        own = [child for child, command in children.items() if f"/{part}/" in command]
        if own:
            used[part] = sum(map(_seconds, own))
    return used


def milliseconds_an_image(
    before: dict[str, float], after: dict[str, float], images: int
) -> dict[str, float]:
    """Tell the CPU time between two readings, in ms an image."""
    return {name: 1000 * (after[name] - before[name]) / images for name in after if name in before}


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        connections = process.net_connections("tcp")
    except psutil.Error:  # another user's
        return False
    return any(
        each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in connections
    )


def _seconds(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
