"""The journal of the measurements: a line each, from which a stopped run continues."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scripts.embedded import ServerError
from scripts.measuring.figures import Figures
from scripts.measuring.gpu.plan import Measurement, Setup


@dataclass(frozen=True)
class Result:
    """What a measurement gave: figures, or the best class of each image, or why it failed."""

    measurement: Measurement
    round: int
    figures: Figures = field(default_factory=dict)
    classes: tuple[int, ...] = ()
    failed: str = ""

    @property
    def key(self) -> tuple[Measurement, int]:
        """What identifies the result; a later one replaces an earlier one."""
        return self.measurement, self.round

    def __str__(self) -> str:
        what = f"failed: {self.failed}" if self.failed else f"{len(self.classes)} images"
        if self.figures:
            units = {"rate": "images/s", "p50_ms": "ms p50", "p99_ms": "ms p99"}
            what = ", ".join(f"{self.figures[name]:.1f} {unit}" for name, unit in units.items())
        return f"{self.measurement}: {what}"


class Journal:
    """The results in a file, to which each is added as soon as it is measured.

    `header` describes the machine and the options of a new journal. One that exists keeps its own,
    and is continued only if the values of `same` are equal.

    Raises:
        ServerError: they differ, or the file is not a journal.
    """

    def __init__(self, file: Path, header: dict[str, Any], *, same: Iterable[str]) -> None:
        self._file = file
        lines = _complete_lines(file)
        try:
            first, *others = [json.loads(line) for line in lines] or [header]
            self.header = dict(first)
            self._results = {each.key: each for each in map(_result, others)}
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(f"{file} is damaged ({error!r}); choose another --output") from error
        for name in same:
            if self.header.get(name) != header[name]:
                raise ServerError(
                    f"{file} was written with another {name} ({self.header.get(name)!r}, now "
                    f"{header[name]!r}); choose another --output"
                )
        file.write_bytes(b"".join(lines))  # without a last line that is torn
        if not lines:
            self._append(header)

    @property
    def results(self) -> tuple[Result, ...]:
        """The results, in the order in which they were measured first."""
        return tuple(self._results.values())

    def missing(
        self, measurements: Iterable[Measurement], number: int, *, retry: bool
    ) -> list[Measurement]:
        """Return what was not measured in a round; with `retry` also what failed."""
        found = {key: each for key, each in self._results.items() if not (retry and each.failed)}
        return [each for each in measurements if (each, number) not in found]

    def add(self, result: Result) -> None:
        """Write a result; it is on the disk when this returns, also if it is interrupted."""
        self._results[result.key] = result
        self._append(asdict(result))

    def _append(self, values: dict[str, Any]) -> None:
        with self._file.open("ab") as stream:
            stream.write(json.dumps(values).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())


def _complete_lines(file: Path) -> list[bytes]:
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    return [line for line in lines if line.endswith(b"\n")]


def _result(values: dict[str, Any]) -> Result:
    measured = values["measurement"]
    return Result(
        Measurement(Setup(**measured["setup"]), measured["series"], measured["load"]),
        values["round"],
        values["figures"],
        tuple(values["classes"]),
        values["failed"],
    )
