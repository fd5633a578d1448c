"""A report as a picture: throughput and the slowest answers against the number of clients."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from scripts.measuring.report import Figures, Report, load_figure, medians

INCHES = (6.4, 4.2)  # of each of the diagrams
DOTS_PER_INCH = 120
LIMIT_COLOUR = "black"


def draw(report: Report, file: Path) -> None:
    """Write the picture as PNG: a column for each model."""
    mpl.use("Agg")
    models = list(report.rounds)
    size = (INCHES[0] * len(models), INCHES[1] * 2)
    figure, axes = plt.subplots(2, len(models), figsize=size, squeeze=False)
    for column, model in enumerate(models):
        throughput, latency = axes[0, column], axes[1, column]
        figures = medians(report.figures(model))
        _throughput(throughput, report, model, figures)
        _latency(latency, report, model, figures)
    cores, cpu = report.machine.cores, report.machine.cpu
    figure.suptitle(f"{cores} x {cpu}, rounds: {report.settings.rounds}")
    figure.tight_layout()
    figure.savefig(file, dpi=DOTS_PER_INCH, format="png")
    plt.close(figure)


def _throughput(axes: Axes, report: Report, model: str, figures: Figures) -> None:
    _lines(axes, report, model, figures, "rate")
    limits = {
        "limit: images/s": ("limit: no server, every core", "--"),
        "plain loop: images/s": ("the same with Pillow alone", ":"),
    }
    for name, (label, style) in limits.items():
        axes.axhline(figures[name], label=label, color=LIMIT_COLOUR, ls=style)
    axes.set_title(model)
    axes.set_ylabel("throughput (images/s)")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")


def _latency(axes: Axes, report: Report, model: str, figures: Figures) -> None:
    """Draw the p99, over the mean time that so many clients would see at the limit."""
    _lines(axes, report, model, figures, "p99")
    clients = report.settings.clients
    bare, limit = figures["one worker alone: p50 ms"], figures["limit: images/s"]
    least = [max(bare, 1000 * number / limit) for number in clients]
    axes.plot(clients, least, label="mean at the limit", color=LIMIT_COLOUR, ls="--")
    axes.set_ylabel("p99 latency (ms)")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left")


def _lines(axes: Axes, report: Report, model: str, figures: Figures, name: str) -> None:
    for what in report.rounds[model][0].loads:
        clients = report.settings.clients
        values = [figures[load_figure(what, number, name)] for number in clients]
        axes.plot(clients, values, marker="o", label=what)
    axes.set_xscale("log", base=2)
    axes.set_xticks(report.settings.clients, [str(each) for each in report.settings.clients])
    axes.minorticks_off()
    axes.set_xlabel("clients at a time")
    axes.grid(visible=True, alpha=0.3)
