"""A benchmark report as a chart: throughput and 99th percentile against concurrent clients."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from scripts.measuring.figures import BASELINE, LABELS, OTHER, SERIES, UPPER_BOUND, load_id
from scripts.measuring.report import Report, medians

INCHES = (6.4, 4.2)  # of each diagram


def draw(report: Report, file: Path) -> None:
    """Write a PNG file with a column for each model."""
    mpl.use("Agg")
    models = list(report.rounds)
    size = (INCHES[0] * len(models), INCHES[1] * 2)
    figure, axes = plt.subplots(2, len(models), figsize=size, squeeze=False)
    for column, model in enumerate(models):
        _throughput(axes[0, column], report, model)
        _latency(axes[1, column], report, model)
    cores, cpu = report.machine.cores, report.machine.cpu
    figure.suptitle(f"{cores} cores of {cpu}, medians of {report.plan.rounds} rounds")
    figure.tight_layout()
    figure.savefig(file, dpi=120, format="png")
    plt.close(figure)


def _throughput(axes: Axes, report: Report, model: str) -> None:
    figures, setup = medians(report.rounds[model]), report.setup(model)
    for bound, label, style in (
        (UPPER_BOUND, f"upper bound: {setup.label(report.limit(model))}", "--"),
        (BASELINE, setup.label(BASELINE), ":"),
    ):
        axes.axhline(figures[f"{bound}_rate"], label=label, color="black", ls=style)
    axes.set(title=f"{model} ({setup.build})", ylabel="throughput (images/s)")
    _lines(axes, report, model, "rate")
    axes.legend(loc="best")


def _latency(axes: Axes, report: Report, model: str) -> None:
    """Draw the p99 and the least mean latency that the upper bound allows (Little's law)."""
    figures, clients = medians(report.rounds[model]), report.plan.clients
    alone, rate = figures[f"{UPPER_BOUND}_alone_p50_ms"], figures[f"{UPPER_BOUND}_rate"]
    least = [max(alone, 1000 * number / rate) for number in clients]
    axes.plot(clients, least, label="mean at the upper bound", color="black", ls="--")
    axes.set(ylabel="p99 latency (ms)")
    _lines(axes, report, model, "p99_ms")
    axes.legend(loc="upper left")


def _lines(axes: Axes, report: Report, model: str, name: str) -> None:
    figures, clients = medians(report.rounds[model]), report.plan.clients
    labels = {series: LABELS[series] for series in SERIES}
    if other := report.setup(model).other:
        labels[OTHER] = f"{LABELS[OTHER]}, {other}"
    for series, label in labels.items():
        values = [figures[f"{load_id(series, number)}_{name}"] for number in clients]
        axes.plot(clients, values, marker="o", label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(clients, [str(each) for each in clients])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("concurrent clients")
    axes.grid(visible=True, alpha=0.3)
