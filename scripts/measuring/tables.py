"""A benchmark report as tables for a terminal."""

import statistics

from rich import box
from rich.table import Table

from scripts.measuring.figures import (
    BASELINE,
    ENSEMBLE,
    LABELS,
    OTHER,
    OWN_ENGINE,
    SERIES,
    UPPER_BOUND,
    Figures,
    load_id,
)
from scripts.measuring.report import Report, compare, medians


def of_model(report: Report, model: str) -> list[Table]:
    """Return a model's medians: without a server, its loads, another build, and what remains."""
    other = [_other_build(report, model)] if report.setup(model).other else []
    return [_loops(report, model), _loads(report, model), *other, _others(report, model)]


def comparison(before: Report, after: Report, model: str) -> Table:
    """Return the change of each of a model's ratios."""
    title = (
        f"{model}: before ({before.setup(model).build}, upper bound {before.limit(model)}) "
        f"and after ({after.setup(model).build}, upper bound {after.limit(model)})"
    )
    table = _table(title, "before", "after", "ratio")
    for name, (old, new) in compare(before, after, model).items():
        change = f"{new / old:.3f}" if old else "-"
        table.add_row(LABELS.get(name, name), f"{old:.3f}", f"{new:.3f}", change)
    return table


def _loops(report: Report, model: str) -> Table:
    figures, setup = medians(report.rounds[model]), report.setup(model)
    title = f"{model} ({setup.build}): without a server, one process for each core"
    table = _table(title, "images/s", "graph only", "p50 ms alone")
    for name in setup.loops:
        mark = " (upper bound)" if name == report.limit(model) else ""
        names = (f"{name}_rate", f"{name}_graph_rate", f"{name}_alone_p50_ms")
        table.add_row(setup.label(name) + mark, *(f"{figures[each]:.1f}" for each in names))
    table.caption, table.caption_justify = setup.note, "left"
    return table


def _loads(report: Report, model: str) -> Table:
    figures, ratios = medians(report.rounds[model]), medians(report.ratios(model))
    columns = ("images/s", "/base", "/upper", "/own", "p50 ms", "p99 ms", "p99/p50")
    table = _table(f"{model} ({report.setup(model).build}): served", "clients", *columns)
    table.columns[0].no_wrap = True
    for series in SERIES:
        for clients in report.plan.clients:
            load = load_id(series, clients)
            table.add_row(
                LABELS[series],
                str(clients),
                f"{figures[f'{load}_rate']:.1f}",
                *(
                    _ratio(ratios, f"{load}_rate_to_{bound}")
                    for bound in (BASELINE, UPPER_BOUND, OWN_ENGINE)
                ),
                *(f"{figures[f'{load}_{each}_ms']:.1f}" for each in ("p50", "p99")),
                _ratio(ratios, f"{load}_p99_to_p50"),
            )
        table.add_section()
    return table


def _other_build(report: Report, model: str) -> Table:
    figures, ratios = medians(report.rounds[model]), medians(report.ratios(model))
    setup = report.setup(model)
    columns = ("images/s", "other", "ratio", "p50 ratio", "p99 ratio")
    table = _table(f"{model}: {setup.build} / the other build, {setup.other}", "clients", *columns)
    for clients in report.plan.clients:
        load = load_id(ENSEMBLE, clients)
        table.add_row(
            LABELS[ENSEMBLE],
            str(clients),
            *(f"{figures[f'{load_id(each, clients)}_rate']:.1f}" for each in (ENSEMBLE, OTHER)),
            *(_ratio(ratios, f"{load}_{each}_to_other") for each in ("rate", "p50_ms", "p99_ms")),
        )
    return table


def _ratio(ratios: Figures, name: str) -> str:
    return f"{ratios[name]:.3f}" if name in ratios else "-"


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
    table = Table("", *columns, title=f"\n{title}", box=box.SIMPLE_HEAD, show_edge=False)
    table.padding = (0, 1, 0, 0)
    table.title_justify = "left"
    for column in table.columns[1:]:
        column.justify = "right"
        column.min_width = 6  # a narrow terminal wraps the labels, not the numbers
    return table
