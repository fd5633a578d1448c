"""A benchmark report as tables for a terminal."""

import statistics

from rich import box
from rich.table import Table

from scripts.measuring.figures import BASELINE, LABELS, SERIES, UPPER_BOUND, load_id
from scripts.measuring.report import Report, compare, medians


def of_model(report: Report, model: str) -> list[Table]:
    """Return a model's medians: its loads, and its other ratios and figures."""
    return [_loads(report, model), _others(report, model)]


def comparison(before: Report, after: Report, model: str) -> Table:
    """Return the change of each of a model's ratios."""
    table = _table(f"{model}: before and after", "before", "after", "ratio")
    for name, (old, new) in compare(before, after, model).items():
        change = f"{new / old:.3f}" if old else "-"
        table.add_row(LABELS.get(name, name), f"{old:.3f}", f"{new:.3f}", change)
    return table


def _loads(report: Report, model: str) -> Table:
    figures, ratios = medians(report.rounds[model]), medians(report.ratios(model))
    title = (
        f"{model}: upper bound {figures['upper_bound_rate']:.1f} images/s "
        f"({figures['upper_bound_graph_rate']:.1f} for the graph only), "
        f"baseline {figures['baseline_rate']:.1f} images/s"
    )
    columns = ("clients", "images/s", "/ upper", "/ base", "p50 ms", "p99 ms", "p99/p50")
    table = _table(title, *columns)
    table.columns[0].no_wrap = True
    for series in SERIES:
        for clients in report.plan.clients:
            load = load_id(series, clients)
            table.add_row(
                LABELS[series],
                str(clients),
                f"{figures[f'{load}_rate']:.1f}",
                f"{ratios[f'{load}_rate_to_{UPPER_BOUND}']:.3f}",
                f"{ratios[f'{load}_rate_to_{BASELINE}']:.3f}",
                *(f"{figures[f'{load}_{each}_ms']:.1f}" for each in ("p50", "p99")),
                f"{ratios[f'{load}_p99_to_p50']:.2f}",
            )
        table.add_section()
    return table


def _others(report: Report, model: str) -> Table:
    table = _table(f"{model}: other figures, with their range", "median", "min", "max")
    pairs = zip(report.rounds[model], report.ratios(model), strict=True)
    rounds = [figures | ratios for figures, ratios in pairs]
    for name, label in LABELS.items():
        if values := [each[name] for each in rounds if name in each]:
            numbers = (statistics.median(values), min(values), max(values))
            table.add_row(label, *(f"{each:.3f}" for each in numbers))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table("", *columns, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.title_justify = "left"
    for column in table.columns[1:]:
        column.justify = "right"
        column.min_width = 6  # a narrow terminal wraps the labels, not the numbers
    return table
