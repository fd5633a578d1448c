"""All rounds of a run, their medians, and how they are kept as JSON."""

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args, get_origin, get_type_hints

from scripts.embedded import ServerError
from scripts.measuring.figures import (
    ENSEMBLE,
    LIMIT,
    MODEL_ONLY,
    PLAIN,
    Load,
    Overload,
    Photograph,
    Round,
    Settings,
    Step,
)
from scripts.measuring.machine import Machine

Figures = dict[str, float]


@dataclass(frozen=True)
class Report:
    """What was measured, where and how: the rounds of each model, in their order."""

    machine: Machine
    settings: Settings
    rounds: dict[str, tuple[Round, ...]]

    def write(self, file: Path) -> None:
        """Write it as JSON, with the medians for whoever reads that."""
        content = dataclasses.asdict(self) | {
            "medians": {
                model: {
                    "ratios": medians(self.ratios(model)),
                    "figures": medians(self.figures(model)),
                }
                for model in self.rounds
            }
        }
        file.write_text(json.dumps(content, indent=2) + "\n", "utf-8")

    def ratios(self, model: str) -> list[Figures]:
        """What of each round holds on a noisy machine."""
        return [ratios(each) for each in self.rounds[model]]

    def figures(self, model: str) -> list[Figures]:
        """What each round's absolute numbers are."""
        return [figures(each) for each in self.rounds[model]]


def read(file: Path) -> Report:
    """Read what `Report.write` wrote; the medians are worked out anew.

    Raises:
        ServerError: the file holds something else.
    """
    try:
        content = json.loads(file.read_text("utf-8"))
        names = [field.name for field in dataclasses.fields(Report)]
        return cast("Report", _decode(Report, {name: content[name] for name in names}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServerError(
            f"{file} is no report of this benchmark ({error!r}); give its benchmark.json"
        ) from error


def ratios(one: Round) -> Figures:
    """Divide what was measured by what it is measured against, in one round."""
    result: Figures = {}
    for what, loads in one.loads.items():
        for load in loads:
            result[share(what, load.clients, LIMIT)] = load.rate / one.limit.rate
            result[share(what, load.clients, PLAIN)] = load.rate / one.plain.rate
            result[f"{what}, {load.clients} clients: p99 / p50"] = load.p99 / load.p50
    result["ensemble, its peak / limit"] = _peak(one) / one.limit.rate
    result["model only, its peak / the graph alone"] = (
        max(load.rate for load in one.loads[MODEL_ONLY]) / one.limit.graph_rate
    )
    first = one.loads[ENSEMBLE][0]
    if first.clients == 1:
        result["one client's p50 / one worker's"] = first.p50 / one.alone.p50
        result["one client's p50 / one plain worker's"] = first.p50 / one.plain_alone.p50
    preprocess = next(iter(one.inside.steps))
    if preprocess in one.inside.cpu_ms:
        used = one.inside.cpu_ms[preprocess]
        result["preprocess step's CPU / its code's alone"] = used / one.limit.imaging_ms
        result["preprocess step's CPU / Pillow's alone"] = used / one.plain.imaging_ms
    large = one.photograph
    result["large photograph: step / zoo's code"] = large.step_ms / large.reference_ms
    return result | _overload_ratios(one.overload, _peak(one))


def figures(one: Round) -> Figures:
    """Name every absolute number of one round."""
    result: Figures = {
        "limit: images/s": one.limit.rate,
        "limit, the graph alone: images/s": one.limit.graph_rate,
        "plain loop: images/s": one.plain.rate,
        "one worker alone: p50 ms": one.alone.p50,
        "one plain worker alone: p50 ms": one.plain_alone.p50,
        "the step's code alone: CPU ms an image": one.limit.imaging_ms,
        "Pillow alone: CPU ms an image": one.plain.imaging_ms,
    }
    for what, loads in one.loads.items():
        for load in loads:
            for name, value in _fields(load).items():
                result[load_figure(what, load.clients, name)] = value
    for step, times in one.inside.steps.items():
        for name, value in _fields(times).items():
            result[step_figure(step, name)] = value
    for name, value in one.inside.cpu_ms.items():
        result[cpu_figure(name)] = value
    for group, values in (("overload", one.overload), ("large photograph", one.photograph)):
        result |= {f"{group}: {name}": value for name, value in _fields(values).items()}
    return result


def share(what: str, clients: int, bare: str) -> str:
    """Name the ratio of a load's images/s to those of LIMIT or PLAIN."""
    return f"{what}, {clients} clients / {bare}"


def load_figure(what: str, clients: int, name: str) -> str:
    """Name a number of a load: its `rate`, `p50` or `p99`."""
    return f"{what}, {clients} clients: {name}"


def step_figure(step: str, name: str) -> str:
    """Name a number of a step: its `queue`, `input`, `compute`, `output` or `batch`."""
    return f"{step}: {name}"


def cpu_figure(process: str) -> str:
    """Name the CPU time of a process of the server."""
    return f"{process}: CPU ms an image"


def medians(rounds: Sequence[Figures]) -> Figures:
    """Take the median of each figure over the rounds that have it."""
    names = dict.fromkeys(name for each in rounds for name in each)
    return {
        name: statistics.median(each[name] for each in rounds if name in each) for name in names
    }


def compare(before: Report, after: Report, model: str) -> dict[str, tuple[float, float]]:
    """Put the medians of every ratio that both have side by side."""
    if model not in before.rounds:
        return {}
    old, new = medians(before.ratios(model)), medians(after.ratios(model))
    return {name: (old[name], new[name]) for name in new if name in old}


def _peak(one: Round) -> float:
    return max(load.rate for load in one.loads[ENSEMBLE])


def _overload_ratios(overload: Overload, peak: float) -> Figures:
    shares = {
        "overload: answered / peak": overload.rate / peak,
        "overload: share refused": overload.refused,
        "overload: share failed": overload.failed,
    }
    if overload.p50 and overload.p99:
        shares["overload: p99 / p50 of the answered"] = overload.p99 / overload.p50
    return shares


def _fields(values: Load | Step | Overload | Photograph) -> Figures:
    content = dataclasses.asdict(values)
    return {name: value for name, value in content.items() if value is not None}


def _decode(kind: object, value: object) -> object:
    """Make what a type annotation says of what JSON has for it.

    Raises:
        TypeError: that is something else.
    """
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        fields = {name: _decode(hints[name], each) for name, each in _items(value)}
        made: object = kind(**fields)
        return made
    if get_origin(kind) is dict:
        return {name: _decode(get_args(kind)[1], each) for name, each in _items(value)}
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_decode(get_args(kind)[0], each) for each in value)
    if kind is float and isinstance(value, int):
        return value
    if not isinstance(value, cast("type", kind)):
        raise TypeError(f"{value!r} is not {kind}")
    return value


def _items(value: object) -> Iterable[tuple[str, object]]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no object")
    return value.items()
