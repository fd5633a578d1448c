"""The rounds of a benchmark, their ratios and medians, and the JSON file that holds them."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.embedded import ServerError
from scripts.measuring.figures import (
    BASELINE,
    ENSEMBLE_HTTP,
    MODEL_HTTP,
    SERIES,
    UPPER_BOUND,
    BenchmarkPlan,
    Figures,
    load_id,
)
from scripts.measuring.machine import Machine


@dataclass(frozen=True)
class Report:
    """What was measured, where and how; `rounds` holds the figures of each model's rounds."""

    machine: Machine
    plan: BenchmarkPlan
    rounds: dict[str, tuple[Figures, ...]]

    def write(self, file: Path) -> None:
        """Write JSON: the rounds, and the medians of their figures and ratios."""
        content = dataclasses.asdict(self) | {
            "medians": {
                model: {"ratios": medians(self.ratios(model)), "figures": medians(rounds)}
                for model, rounds in self.rounds.items()
            }
        }
        file.write_text(json.dumps(content, indent=2) + "\n", "utf-8")

    def ratios(self, model: str) -> list[Figures]:
        """Return the ratios of each round of a model."""
        return [ratios(figures, self.plan.clients) for figures in self.rounds[model]]


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
            BenchmarkPlan(
                float(plan["seconds"]), int(plan["rounds"]), tuple(map(int, plan["clients"]))
            ),
            {model: tuple(map(_figures, rounds)) for model, rounds in content["rounds"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServerError(
            f"{file} is not a benchmark report ({error!r}); pass a benchmark.json"
        ) from error


def ratios(figures: Figures, clients: Sequence[int]) -> Figures:
    """Divide the figures of one round by those that they are compared with."""
    result: Figures = {}
    for series in SERIES:
        for load in (load_id(series, each) for each in clients):
            if f"{load}_rate" not in figures:
                continue
            for bound in (UPPER_BOUND, BASELINE):
                result[f"{load}_rate_to_{bound}"] = (
                    figures[f"{load}_rate"] / figures[f"{bound}_rate"]
                )
            result[f"{load}_p99_to_p50"] = figures[f"{load}_p99_ms"] / figures[f"{load}_p50_ms"]
    peak = _peak(figures, ENSEMBLE_HTTP, clients)
    graph_only = figures[f"{UPPER_BOUND}_graph_rate"]
    result["ensemble_peak_to_upper_bound"] = peak / figures[f"{UPPER_BOUND}_rate"]
    result["model_peak_to_graph_only"] = _peak(figures, MODEL_HTTP, clients) / graph_only
    if 1 in clients:
        one = figures[f"{load_id(ENSEMBLE_HTTP, 1)}_p50_ms"]
        for bound in (UPPER_BOUND, BASELINE):
            result[f"one_client_p50_to_{bound}"] = one / figures[f"{bound}_alone_p50_ms"]
    result["preprocess_cpu_to_baseline"] = (
        figures[f"{UPPER_BOUND}_preprocess_cpu_ms"] / figures[f"{BASELINE}_preprocess_cpu_ms"]
    )
    result["overload_rate_to_peak"] = figures["overload_rate"] / peak
    for share in ("overload_refused_share", "overload_failed_share"):
        result[share] = figures[share]
    if "overload_p99_ms" in figures:
        result["overload_p99_to_p50"] = figures["overload_p99_ms"] / figures["overload_p50_ms"]
    return result


def medians(rounds: Sequence[Figures]) -> Figures:
    """Return the median of each figure over the rounds that have it."""
    names = dict.fromkeys(name for each in rounds for name in each)
    return {
        name: statistics.median(each[name] for each in rounds if name in each) for name in names
    }


def compare(before: Report, after: Report, model: str) -> dict[str, tuple[float, float]]:
    """Return the medians (before, after) of each ratio that both reports have."""
    if model not in before.rounds:
        return {}
    old, new = medians(before.ratios(model)), medians(after.ratios(model))
    return {name: (old[name], new[name]) for name in new if name in old}


def _figures(content: dict[str, float]) -> Figures:
    return {name: float(value) for name, value in content.items()}


def _peak(figures: Figures, series: str, clients: Sequence[int]) -> float:
    return max(figures[f"{load_id(series, each)}_rate"] for each in clients)
