"""The results as a table of a page, and as a chart."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from scripts.measuring.gpu.plan import BARE, BARE_HOST, ENSEMBLE, ONNX, Measurement
from scripts.measuring.gpu.results import Report, Target

INCHES = (6.4, 4.2)  # of each diagram
LABELS = {BARE: "bare model", BARE_HOST: "bare model, input from the host", ONNX: "NAME_onnx"}
COLUMNS = {
    "rate": "images/s",
    "share": "of bare",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "gpu_share": "GPU busy",
    "gpu_memory_mib": "GPU MiB",
    "cpu_cores": "cores",
    "wrk_cores": "of them wrk",
}
PERCENT = {"share", "gpu_share"}
WHOLE = {"rate", "gpu_memory_mib"}
NOTES = """\
`of bare` divides images/s by those of the bare model at its best batch size: onnxruntime without a
server runs the ensemble's graph, which takes pixels, on a batch that is on the GPU. p50 and p99 are
of a batch there, else of a request with one image, in a closed loop of wrk on the same machine.
`cores` are those that all programs kept busy; `GPU busy` is the share of the time in which the GPU
ran any kernel. "-" was not measured."""


def table(report: Report) -> str:
    """Write the report in Markdown: the machine, the targets, and a table for each model."""
    lines = [f"**{report.title}.**", "", *_wheres(report), "", *_targets(report.targets), ""]
    for model in report.plan.models:
        lines += [*_of_model(report, model), ""]
    lines += [*NOTES.splitlines(), "", *_agreements(report)]
    for title, entries in (
        ("Failed", [f"{each}: {reason}" for each, reason in report.failures.items()]),
        ("Skipped", report.plan.skipped),
        ("Not measured yet", list(map(str, report.missing))),
    ):
        lines += [f"{title}:", "", *(f"- {each}" for each in entries), ""] if entries else []
    return "\n".join(lines).rstrip() + "\n"


def _wheres(report: Report) -> Iterator[str]:
    machine, plan = report.machine, report.plan
    yield ", ".join(f"{name} {value}" for name, value in report.gpu.items()) or "No GPU was found."
    yield f"{machine.cores} cores of {machine.cpu}."
    yield ", ".join(f"{name} {version}" for name, version in machine.versions.items()) + "."
    yield (
        f"Weights: {report.weights}. Turns of {plan.seconds:g} s, rounds: {plan.rounds}. "
        "A JPEG of 500x375 pixels, 45 KB."
    )


def _targets(targets: Iterable[Target]) -> Iterator[str]:
    yield "| target | bound | measured | |"
    yield "| --- | ---: | ---: | --- |"
    for each in targets:
        value = "-" if each.value is None else f"{each.value:,.3f}{each.unit}"
        verdict = f"{each.verdict} ({each.note})" if each.note else each.verdict
        sign = "≤" if each.is_most else "≥"
        yield f"| {each.name} | {sign} {each.bound:,g}{each.unit} | {value} | {verdict} |"


def _of_model(report: Report, model: str) -> Iterator[str]:
    yield f"| {model} | batch or clients | {' | '.join(COLUMNS.values())} |"
    yield "| --- | ---: |" + " ---: |" * len(COLUMNS)
    found = [each for each in report.figures if each.setup.model == model]
    for each in sorted(found, key=lambda one: (one.setup.precision, *_place(one))):
        values = report.figures[each] | {"share": report.share(each)}
        cells = [_cell(name, values.get(name)) for name in COLUMNS]
        yield f"| {_series(each)} | {each.load} | {' | '.join(cells)} |"


def _place(measurement: Measurement) -> tuple[int, str, int]:
    """Sort the series of the table: first the bare model, last the ensembles."""
    series = (*LABELS, ENSEMBLE).index(measurement.series)
    return series, _series(measurement), measurement.load


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name in PERCENT:
        return f"{value:.0%}"
    return f"{value:,.0f}" if name in WHOLE else f"{value:.1f}"


def _series(measurement: Measurement) -> str:
    setup = measurement.setup
    decoded = f"ensemble, {setup.preprocess.upper()} preprocessing"
    engine = "" if setup.engine == "onnxruntime" else f" {setup.engine}"
    return f"{setup.precision}{engine}, {LABELS.get(measurement.series, decoded)}"


def _agreements(report: Report) -> Iterator[str]:
    if not report.agreements:
        return
    what = "photographs" if report.are_photographs else "parts of one photograph"
    yield f"Same best class, of {what}, {report.plan.compared} ({report.compared_weights} weights):"
    yield ""
    yield "| build | compared with | images | same |"
    yield "| --- | --- | ---: | ---: |"
    for each in report.agreements:
        yield f"| {each.other} | {each.one} | {each.images} | {each.share:.2%} |"
    yield ""


def draw(report: Report, file: Path) -> None:
    """Write a PNG file: throughput and 99th percentile for each model."""
    mpl.use("Agg")
    models = report.plan.models
    size = (INCHES[0] * len(models), INCHES[1] * 2)
    figure, axes = plt.subplots(2, len(models), figsize=size, squeeze=False)
    for column, model in enumerate(models):
        _lines(axes[0, column], report, model, "rate")
        _lines(axes[1, column], report, model, "p99_ms")
        axes[0, column].set(title=model, ylabel="throughput (images/s)")
        axes[1, column].set(xlabel="concurrent clients", ylabel="p99 latency (ms)")
    figure.suptitle(report.title)
    figure.tight_layout()
    figure.savefig(file, dpi=120, format="png")
    plt.close(figure)


def _lines(axes: Axes, report: Report, model: str, name: str) -> None:
    """Draw a figure against the clients, and the bare model's best images/s as lines."""
    found = [each for each in report.figures if each.setup.model == model]
    for precision, style in zip(report.plan.precisions, ("--", ":"), strict=False):
        bare = report.best(BARE, model, precision)
        if name == "rate" and bare:
            axes.axhline(bare, label=f"{precision}, {LABELS[BARE]}", color="black", ls=style)
    served = [each for each in found if each.series in {ONNX, ENSEMBLE}]
    for series in dict.fromkeys(map(_series, served)):
        points = sorted(
            (each.load, report.figures[each][name]) for each in served if _series(each) == series
        )
        axes.plot(*zip(*points, strict=True), marker="o", label=series)
    clients = sorted({each.load for each in served})
    if clients:
        axes.set_xscale("log", base=2)
        axes.set_xticks(clients, [str(each) for each in clients])
        axes.legend(loc="best", fontsize="small")
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
