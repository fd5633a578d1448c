"""Gives back the credits of the decoding step, whose `credits.py` says what they are for."""

import mmap
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

SHEET = "/memfd:decoding-credits"


class Credits:
    """The way to the sheets of all decoding processes."""

    def __init__(self) -> None:
        self.sheets: dict[tuple[int, int], memoryview] = {}

    def give_back(self, arrived: npt.NDArray[np.int64]) -> None:
        """Tell the decoding processes that these, INT64 [N, 4], have arrived.

        Each has its own credits noted, and all of them are told when any arrived. A client that
        addresses the step by itself may send anything: what is no credit, or was given back
        before, changes nothing.
        """
        for process, file, place, issued in arrived.tolist():
            with suppress(OSError, IndexError):
                sheet = self._sheet(process, file)
                if place > 0 and 0 < issued == sheet[place]:
                    self._note(sheet, place)

    def _note(self, sheet: memoryview, place: int) -> None:
        now = time.monotonic_ns()
        sheet[place] = -now
        for each in self.sheets.values():
            each[0] = now

    def _sheet(self, process: int, file: int) -> memoryview:
        if (process, file) not in self.sheets:
            self.sheets[process, file] = _open(Path(f"/proc/{process}/fd/{file}"))
        return self.sheets[process, file]


def _open(path: Path) -> memoryview:
    if not str(path.readlink()).startswith(SHEET):
        raise FileNotFoundError(path)
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
