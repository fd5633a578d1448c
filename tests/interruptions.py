"""Interrupts builds at each of their file operations and reports what they leave behind.

`python -m tests.interruptions FOLDER HOW RENAME EVERY` runs in a process of its own, because it
forks and because Python's audit hooks stay. HOW is SIGKILL, SIGINT or ENOSPC; RENAME is `exchange`,
or `two` as on a file system that cannot exchange folders; EVERY is 1 for every operation. It prints
a line for each interruption that left the repository neither as it was nor as it should become, or
made the next build fail, and then the number of interruptions.
"""

import errno
import functools
import itertools
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from scripts.repository import builder, manifest, sources, transaction
from scripts.repository.errors import BuildError
from scripts.repository.execution import Request
from scripts.repository.tuning import Tuning
from tests.files import contents
from tests.graphs import imagenet

Change = Callable[[Path], None]
Contents = dict[str, bytes] | None

# What changes a folder; ctypes.dlsym comes before each system call of the exchange.
OPERATIONS = {
    "ctypes.dlsym",
    *(f"os.{name}" for name in ("mkdir", "rmdir", "link", "rename", "remove")),
}


class Interruption:
    """Ends a process, or raises an error in it, before its operation number `at`."""

    def __init__(self, how: str) -> None:
        self.how, self.at, self.count = how, 0, 0
        sys.addaudithook(self.hook)

    def arm(self, at: int) -> None:
        self.at, self.count = at, 0

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        is_written = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not self.at or not (is_written or event in OPERATIONS):
            return
        self.count += 1
        if self.count != self.at:
            return
        self.at = 0
        if self.how == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "SIGINT":
            raise KeyboardInterrupt
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@dataclass(frozen=True)
class Options:
    """How to interrupt, whether folders can be exchanged, and at each how manieth operation."""

    interruption: Interruption
    can_exchange: bool
    every: int


def changes(folder: Path) -> dict[str, tuple[Change, Change]]:
    """Return pairs of what is there before and what is interrupted."""
    onnx.save(imagenet(), folder / "graph.onnx")
    known = {name: sources.from_file(folder / "graph.onnx", name) for name in ("birds", "planes")}

    def build(repository: Path, *names: str, queue: int | None = None) -> None:
        with builder.session(repository, names) as session:
            for name in names:
                session.add(known[name], Request(Tuning(queue=queue)))

    def remove(repository: Path) -> None:
        with builder.session(repository) as session:
            if "birds" in manifest.read(repository):
                session.remove(["birds"])

    def add(*names: str, queue: int | None = None) -> Change:
        return lambda repository: build(repository, *names, queue=queue)

    return {
        "first build": (lambda _: None, add("birds")),
        "step of its own": (add("planes"), add("birds", queue=3)),
        "shared step": (add("birds", "planes"), add("birds", "planes", queue=3)),
        "removal": (add("birds", "planes"), remove),
    }


def interrupted(change: Change, repository: Path, interruption: Interruption, at: int) -> bool:
    """Interrupt a change, and return whether it was interrupted: whether it has so many steps."""
    if interruption.how != "SIGKILL":
        interruption.arm(at)
        try:
            change(repository)
        except (KeyboardInterrupt, OSError, BuildError):
            return True
        return not interruption.at
    if not (child := os.fork()):
        interruption.arm(at)
        change(repository)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def report(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def state(repository: Path) -> Contents:
    return contents(repository) if repository.exists() else None


def check(name: str, before: Change, change: Change, folder: Path, options: Options) -> int:
    """Interrupt a change at each operation, and return how often that was."""
    repository = folder / "model repository ü"
    before(repository)
    old = state(repository)
    saved = folder.with_name("saved")
    if old is not None:
        shutil.copytree(repository, saved)
    change(repository)
    new = state(repository)
    # Between two renames there is no repository for a moment, until the next build.
    allowed = [old, new] if options.can_exchange else [old, new, None]
    for count in itertools.count():
        shutil.rmtree(folder)
        folder.mkdir()
        if old is not None:
            shutil.copytree(saved, repository)
        at = 1 + count * options.every
        was_interrupted = interrupted(change, repository, options.interruption, at)
        options.interruption.arm(0)
        if not was_interrupted:
            return count
        if state(repository) not in allowed:
            report(f"{name}, operation {at}: the repository is neither old nor new")
        change(repository)
        if state(repository) != new or list(folder.iterdir()) != [repository]:
            report(f"{name}, operation {at}: the next build fails, or leaves something behind")
    return 0


def main(folder: Path, options: Options) -> None:
    logging.disable()
    if not options.can_exchange:
        transaction.RENAME_EXCHANGE = 1 << 30  # the kernel answers EINVAL to an unknown flag
    builder._make = functools.cache(builder._make)  # only writing is of interest
    count = 0
    for name, (before, change) in changes(folder).items():
        place = folder / name / "tested"
        place.mkdir(parents=True)
        count += check(name, before, change, place, options)
    report(f"{count} interruptions")


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        Options(Interruption(sys.argv[2]), sys.argv[3] == "exchange", int(sys.argv[4])),
    )
