"""A report as tables for a terminal."""

from rich import box
from rich.table import Table

from scripts.measuring.figures import LIMIT, PLAIN
from scripts.measuring.processes import SERVER
from scripts.measuring.report import (
    Figures,
    Report,
    compare,
    cpu_figure,
    load_figure,
    medians,
    share,
    step_figure,
)

STEP_COLUMNS = ("queue", "input", "compute", "output", "batch")


def of_model(report: Report, model: str) -> list[Table]:
    """Show one model's medians: its loads, what else is a ratio, and the inside of the server."""
    figures, ratios = medians(report.figures(model)), medians(report.ratios(model))
    return [
        _loads(report, model, figures, ratios),
        _other_ratios(report, model, ratios),
        _inside(report, model, figures),
        _overload(model, figures),
    ]


def comparison(before: Report, after: Report, model: str) -> Table:
    """Show what became of each of a model's ratios."""
    table = _table(f"{model}: before and after", "", "before", "after", "ratio")
    for name, (old, new) in compare(before, after, model).items():
        table.add_row(name, f"{old:.3f}", f"{new:.3f}", f"{new / old:.3f}" if old else "-")
    return table


def _loads(report: Report, model: str, figures: Figures, ratios: Figures) -> Table:
    title = (
        f"{model}: the limit is {figures['limit: images/s']:.1f} images/s, "
        f"{figures['limit, the graph alone: images/s']:.1f} for the graph alone, "
        f"{figures['plain loop: images/s']:.1f} for the plain loop"
    )
    shares = (f"of the {bare}" for bare in (LIMIT, PLAIN))
    columns = ("clients", "images/s", *shares, "p50 ms", "p99 ms", "p99 / p50")
    table = _table(title, "", *columns)
    for what, loads in report.rounds[model][0].loads.items():
        for clients in (load.clients for load in loads):
            rate, p50, p99 = (
                figures[load_figure(what, clients, name)] for name in ("rate", "p50", "p99")
            )
            table.add_row(
                what,
                str(clients),
                f"{rate:.1f}",
                *(f"{ratios[share(what, clients, bare)]:.3f}" for bare in (LIMIT, PLAIN)),
                f"{p50:.1f}",
                f"{p99:.1f}",
                f"{ratios[f'{what}, {clients} clients: p99 / p50']:.2f}",
            )
        table.add_section()
    return table


def _other_ratios(report: Report, model: str, ratios: Figures) -> Table:
    table = _table(f"{model}: ratios, and their range over the rounds", "", "median", "from", "to")
    rounds = report.ratios(model)
    for name, median in ratios.items():
        if " clients" not in name:
            values = [each[name] for each in rounds if name in each]
            table.add_row(name, *(f"{each:.3f}" for each in (median, min(values), max(values))))
    return table


def _inside(report: Report, model: str, figures: Figures) -> Table:
    inside = report.rounds[model][0].inside
    title = f"{model}: where an image's ms go at {inside.clients} clients, and images in a batch"
    table = _table(title, "", *STEP_COLUMNS[:-1], "batch", "CPU ms")
    for step in inside.steps:
        numbers = (figures[step_figure(step, name)] for name in STEP_COLUMNS)
        table.add_row(step, *(f"{number:.2f}" for number in numbers), _cpu(figures, step))
    if inside.cpu_ms:
        table.add_row(SERVER, *("" for _ in STEP_COLUMNS), _cpu(figures, SERVER))
    return table


def _cpu(figures: Figures, process: str) -> str:
    used = figures.get(cpu_figure(process))
    return "-" if used is None else f"{used:.2f}"


def _overload(model: str, figures: Figures) -> Table:
    names = {
        "offered": "offered, images/s",
        "rate": "answered, images/s",
        "p50": "an answer's p50 ms",
        "p99": "an answer's p99 ms",
        "refusal_p50": "a refusal's p50 ms",
    }
    table = _table(f"{model}: overload", "", "median")
    for name, said in names.items():
        value = figures.get(f"overload: {name}")
        table.add_row(said, "-" if value is None else f"{value:.1f}")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    return table
