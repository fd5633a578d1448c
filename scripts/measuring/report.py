"""The rounds of a benchmark, their ratios and medians, and the JSON file that holds them."""

import dataclasses
import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from scripts.embedded import ServerError
from scripts.measuring.figures import (
    BASELINE,
    ENSEMBLE,
    LABELS,
    OTHER,
    OWN_ENGINE,
    SERIES,
    UPPER_BOUND,
    BenchmarkPlan,
    Figures,
    load_id,
)
from scripts.measuring.subject import Build
from scripts.repository.graphs import engines
from scripts.repository.tuning import cores

PACKAGES = ("pillow", "numpy")
CPU_INFO = Path("/proc/cpuinfo")
# The ratios besides those of each load.
COMPARED = {
    "ensemble_peak_to_upper_bound": ("ensemble_http_peak_rate", "upper_bound_rate"),
    "model_peak_to_graph_only": ("model_http_peak_rate", "upper_bound_graph_rate"),
    "one_client_p50_to_baseline": ("ensemble_http_1_clients_p50_ms", "baseline_alone_p50_ms"),
    "one_client_p50_to_upper_bound": ("ensemble_http_1_clients_p50_ms", "upper_bound_alone_p50_ms"),
    "one_client_p50_to_own_engine": ("ensemble_http_1_clients_p50_ms", "own_engine_alone_p50_ms"),
    "preprocess_to_baseline": ("upper_bound_preprocess_cpu_ms", "baseline_preprocess_cpu_ms"),
    "overload_rate_to_peak": ("overload_rate", "ensemble_http_peak_rate"),
    "overload_p99_to_p50": ("overload_p99_ms", "overload_p50_ms"),
}


@dataclass(frozen=True)
class Machine:
    """The CPU, the cores that this process may use, and package versions."""

    cpu: str
    cores: int
    versions: dict[str, str]


def this_machine(triton: str) -> Machine:
    """Describe this machine; `triton` is the version of the measured server."""
    found = re.search(r"^model name\s*:\s*(.+)$", CPU_INFO.read_text(), re.MULTILINE)
    packages = packages_distributions()  # such as onnxruntime-gpu, which has onnxruntime
    names = [packages.get(name, [name])[0] for name in (*engines.installed(), *PACKAGES)]
    versions = {name: version(name) for name in names}
    return Machine(found[1] if found else "unknown CPU", cores(), versions | {"triton": triton})


@dataclass(frozen=True)
class Setup:
    """How a model is served, and what it is compared with.

    `loops` maps the loops without a server (the baseline and each engine that was run) to the
    precision in which they computed. `other` is the build that the model is measured against.
    """

    build: Build
    loops: dict[str, str]
    other: Build | None = None

    def label(self, loop: str) -> str:
        """Return the label of a loop without a server, with its precision."""
        return f"{LABELS[loop]} {self.loops[loop]}"

    @property
    def note(self) -> str:
        """What an upper bound lacks: an engine that is not installed, or bf16 on this CPU."""
        if "openvino" not in self.loops:
            return "OpenVINO, which may be faster, was not run: pip install openvino"
        if self.build.precision not in self.loops.values():
            return f"this CPU has no {self.build.precision}, so OpenVINO computed in fp32"
        return ""


# Of reports that an older version wrote, which ran only onnxruntime.
OLDER = Setup(Build("onnxruntime", "of any precision"), {})


@dataclass(frozen=True)
class Report:
    """What was measured, where and how; `rounds` holds the figures of each model's rounds."""

    machine: Machine
    plan: BenchmarkPlan
    rounds: dict[str, tuple[Figures, ...]]
    setups: dict[str, Setup] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        """Write JSON: the rounds, and the medians of their figures and ratios."""
        content = dataclasses.asdict(self) | {
            "medians": {
                model: {
                    "upper_bound": self.limit(model),
                    "ratios": medians(self.ratios(model)),
                    "figures": medians(rounds),
                }
                for model, rounds in self.rounds.items()
            }
        }
        file.write_text(json.dumps(content, indent=2) + "\n", "utf-8")

    def ratios(self, model: str) -> list[Figures]:
        """Return the ratios of each round of a model."""
        engine = self.setup(model).build.engine
        return [ratios(figures, self.plan.clients, engine) for figures in self.rounds[model]]

    def setup(self, model: str) -> Setup:
        """Return how a model was served."""
        return self.setups.get(model, OLDER)

    def limit(self, model: str) -> str:
        """Return the engine that was the upper bound in most rounds."""
        run = [name for name in self.setup(model).loops if name != BASELINE]
        if not run:
            return OLDER.build.engine
        return statistics.mode(
            max(run, key=lambda name: figures[f"{name}_rate"]) for figures in self.rounds[model]
        )


def read(file: Path) -> Report:
    """Read a file that `Report.write` wrote.

    Raises:
        ServerError: the file is not a benchmark report.
    """
    try:
        content = json.loads(file.read_text("utf-8"))
        plan = content["plan"]
        return Report(
            Machine(**content["machine"]),
            BenchmarkPlan(float(plan["seconds"]), int(plan["rounds"]), tuple(plan["clients"])),
            {model: tuple(rounds) for model, rounds in content["rounds"].items()},
            {model: _setup(values) for model, values in content.get("setups", {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "pass a benchmark.json"
        raise ServerError(f"{file} is not a benchmark report ({error!r}); {hint}") from error


def _setup(values: dict[str, Any]) -> Setup:
    other = Build(**values["other"]) if values["other"] else None
    return Setup(Build(**values["build"]), values["loops"], other)


def ratios(figures: Figures, clients: Sequence[int], engine: str) -> Figures:
    """Divide the figures of one round by those that they are compared with.

    `engine` serves the model.
    """
    pairs: dict[str, tuple[str, str]] = {}
    figures = figures | {
        OWN_ENGINE + name.removeprefix(engine): value
        for name, value in figures.items()
        if name.startswith(f"{engine}_")
    }
    for series in SERIES:
        loads = [load_id(series, each) for each in clients]
        peak = max(figures[f"{load}_rate"] for load in loads)
        figures = figures | {f"{series}_peak_rate": peak}
        for load in loads:
            for bound in (BASELINE, UPPER_BOUND, OWN_ENGINE):
                pairs[f"{load}_rate_to_{bound}"] = (f"{load}_rate", f"{bound}_rate")
            pairs[f"{load}_p99_to_p50"] = (f"{load}_p99_ms", f"{load}_p50_ms")
    for each in clients:
        load, other = load_id(ENSEMBLE, each), load_id(OTHER, each)
        for name in ("rate", "p50_ms", "p99_ms"):
            pairs[f"{load}_{name}_to_other"] = f"{load}_{name}", f"{other}_{name}"
    shares = ("overload_refused_share", "overload_failed_share")
    return {
        name: figures[first] / figures[second]
        for name, (first, second) in (pairs | COMPARED).items()
        if first in figures and second in figures
    } | {name: figures[name] for name in shares}


def medians(rounds: Sequence[Figures]) -> Figures:
    """Return the median of each figure over the rounds that have it."""
    values: dict[str, list[float]] = {}
    for name, value in (item for figures in rounds for item in figures.items()):
        values.setdefault(name, []).append(value)
    return {name: statistics.median(each) for name, each in values.items()}


def compare(before: Report, after: Report, model: str) -> dict[str, tuple[float, float]]:
    """Return the medians (before, after) of each ratio that both reports have."""
    if model not in before.rounds:
        return {}
    old, new = medians(before.ratios(model)), medians(after.ratios(model))
    return {name: (old[name], new[name]) for name in new if name in old}
