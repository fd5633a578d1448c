"""A benchmark report as tables for a terminal."""

from rich import box
from rich.table import Table

from scripts.measuring.figures import BASELINE, LABELS, SERIES, UPPER_BOUND, Figures, load_id
from scripts.measuring.report import Report, compare, medians

OVERLOAD = ("offered_rate", "rate", "p50_ms", "p99_ms", "refusal_p50_ms")


def of_model(report: Report, model: str) -> list[Table]:
    """Return a model's medians: its loads, its other ratios, and the overload."""
    figures, ratios = medians(report.rounds[model]), medians(report.ratios(model))
    return [
        _loads(report, model, figures, ratios),
        _other_ratios(report, model, ratios),
        _overload(model, figures),
    ]


def comparison(before: Report, after: Report, model: str) -> Table:
    """Return the change of each of a model's ratios."""
    table = _table(f"{model}: before and after", "", "before", "after", "ratio")
    for name, (old, new) in compare(before, after, model).items():
        change = f"{new / old:.3f}" if old else "-"
        table.add_row(LABELS.get(name, name), f"{old:.3f}", f"{new:.3f}", change)
    return table


def _loads(report: Report, model: str, figures: Figures, ratios: Figures) -> Table:
    title = (
        f"{model}: upper bound {figures['upper_bound_rate']:.1f} images/s "
        f"({figures['upper_bound_graph_rate']:.1f} for the graph only), "
        f"baseline {figures['baseline_rate']:.1f} images/s"
    )
    columns = ("clients", "images/s", "/ upper bound", "/ baseline", "p50 ms", "p99 ms", "p99/p50")
    table = _table(title, "", *columns)
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


def _other_ratios(report: Report, model: str, ratios: Figures) -> Table:
    table = _table(f"{model}: ratios, with their range", "", "median", "min", "max")
    rounds = report.ratios(model)
    for name, median in ratios.items():
        if name in LABELS:
            values = [each[name] for each in rounds if name in each]
            table.add_row(
                LABELS[name], *(f"{each:.3f}" for each in (median, min(values), max(values)))
            )
    return table


def _overload(model: str, figures: Figures) -> Table:
    table = _table(f"{model}: overload", "", "median")
    for name in (f"overload_{each}" for each in OVERLOAD):
        table.add_row(LABELS[name], f"{figures[name]:.1f}" if name in figures else "-")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    return table
