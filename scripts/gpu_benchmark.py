"""`python -m scripts.gpu_benchmark`: a server on a GPU, compared with the bare model."""

import argparse
import json
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeElapsedColumn

from client import Source, expand
from scripts import arguments, cli
from scripts.embedded import ServerError, gpu
from scripts.errors import UserError
from scripts.measuring import report
from scripts.measuring.gpu import bare, pages, usage
from scripts.measuring.gpu.journal import Journal
from scripts.measuring.gpu.plan import PROVIDERS, Plan
from scripts.measuring.gpu.results import Report
from scripts.measuring.gpu.turns import Bench, Builds
from scripts.measuring.markers import replaced
from scripts.measuring.pictures import parts
from scripts.measuring.report import Machine
from scripts.measuring.wrk import Wrk
from scripts.progress import bars
from scripts.repository import digests
from scripts.repository.tuning import GPU_QUEUE

EXAMPLES = """\
  python -m scripts.gpu_benchmark                       # continues where it was stopped
  python -m scripts.gpu_benchmark --budget 540 --weights synthetic
  python -m scripts.gpu_benchmark --onnx squeezenet1.1.onnx --images photos/
  python -m scripts.gpu_benchmark --build-only
  python -m scripts.gpu_benchmark --report-only --docs docs/gpu.md
  python -m scripts.gpu_benchmark --provider cpu --models mobilenetv2 --seconds 1    # rehearsal
"""
MODELS = ("resnet50_v1", "resnet152_v2", "mobilenetv2")
CLIENTS = (1, 8, 64, 256)
BATCHES = (1, 8, 32)
MARKER = "gpu-benchmark"  # of the place for the table in a page
STOP_SECONDS = 15  # to stop the server and to write the report
MIN_SECONDS = 0.1
PARTS = 64  # of the sample photograph
GPU = re.compile("cupy|nvidia-")  # packages that the figures depend on
VERSION = 1  # of the journal
# What a journal may not mix.
SAME = ("version", "provider", "weights", "arguments", "images", "gpu")


class BudgetSpent(BaseException):
    """The time of --budget is over."""


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = cli.parser(
        "scripts.gpu_benchmark",
        "Measure what a GPU reaches: onnxruntime without a server, the served graph, and the "
        "ensemble with preprocessing on the GPU and on the CPU. The most important measurements "
        "come first, each is written to a journal as soon as it is done, and the same command "
        "continues after a stop. Requires the load generator wrk.",
        examples=EXAMPLES,
    )
    _add_measured(parser.add_argument_group("what is measured"))
    _add_plan(parser.add_argument_group("plan"))
    _add_results(parser.add_argument_group("results"))
    parser.add_argument(
        "arguments", nargs="*", metavar="-- ARGUMENTS", help="further options for tritonserver"
    )
    return parser


def _add_measured(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--models",
        nargs="+",
        default=list(MODELS),
        metavar="NAME",
        help=f"the first one decides on the targets (default: {' '.join(MODELS)})",
    )
    group.add_argument(
        "--precisions",
        nargs="+",
        choices=("fp16", "fp32"),
        default=["fp16", "fp32"],
        help="of the graphs (default: fp16 fp32)",
    )
    group.add_argument(
        "--engines",
        nargs="+",
        choices=("onnxruntime", "tensorrt"),
        default=["onnxruntime"],
        help="tensorrt: only the bare model, and only where onnxruntime has TensorRT (default: "
        "onnxruntime)",
    )
    group.add_argument(
        "--provider",
        choices=PROVIDERS,
        default="cuda",
        help="of onnxruntime; cpu: a rehearsal without a GPU (default: %(default)s)",
    )
    group.add_argument(
        "--weights",
        default="zoo",
        metavar="zoo|synthetic|DIR",
        help="of the models, as of scripts.build_repository (default: %(default)s)",
    )
    group.add_argument(
        "--onnx",
        type=arguments.path,
        metavar="FILE",
        help="your own classifier, whose answers are compared with those of FP32 on the CPU "
        "(default: the first of --models)",
    )
    group.add_argument(
        "--images",
        type=arguments.path,
        metavar="DIR",
        help="photographs for this comparison (default: 64 parts of the sample photograph)",
    )


def _add_plan(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--seconds",
        type=arguments.seconds,
        default=3.0,
        metavar="N",
        help="duration of each turn (default: %(default)s)",
    )
    group.add_argument(
        "--rounds",
        type=arguments.count,
        default=1,
        metavar="N",
        help="turns of each measurement (default: %(default)s)",
    )
    group.add_argument(
        "--clients",
        type=_clients,
        default=CLIENTS,
        metavar="N,N",
        help=f"concurrent clients, at most {GPU_QUEUE} (default: {','.join(map(str, CLIENTS))})",
    )
    group.add_argument(
        "--batches",
        type=arguments.counts,
        default=BATCHES,
        metavar="N,N",
        help=f"batch sizes of the bare model (default: {','.join(map(str, BATCHES))})",
    )
    group.add_argument(
        "--budget",
        type=arguments.seconds,
        metavar="SECONDS",
        help="stop before this time is over; the next run continues",
    )
    group.add_argument(
        "--retry-failed", action="store_true", help="measure again what failed in an earlier run"
    )
    group.add_argument(
        "--wrk", default="wrk", metavar="PATH", help="the load generator (default: wrk)"
    )


def _add_results(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--output",
        type=arguments.path,
        default=Path("build/gpu-benchmark"),
        metavar="DIR",
        help="folder for the journal, gpu.json, gpu.png and gpu.md (default: %(default)s)",
    )
    group.add_argument(
        "--repositories",
        type=arguments.path,
        metavar="DIR",
        help="folder for the model repositories; one that is there already is used (default: "
        "repositories in --output)",
    )
    group.add_argument(
        "--build-only", action="store_true", help="build the model repositories, measure nothing"
    )
    group.add_argument(
        "--report-only", action="store_true", help="write the report, measure nothing"
    )
    group.add_argument(
        "--docs",
        type=arguments.path,
        metavar="PAGE",
        help=f"put the table between the markers {MARKER} of this page too, and gpu.json and "
        "gpu.png beside it",
    )


def _clients(text: str) -> tuple[int, ...]:
    found = arguments.counts(text)
    if max(found) > GPU_QUEUE:
        raise argparse.ArgumentTypeError(f"at most {GPU_QUEUE} requests may wait in a queue")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parser().parse_args(arguments)
    return cli.run(lambda: benchmark(options))


def benchmark(options: argparse.Namespace) -> int:
    """Measure what is missing, and write the report also if it is stopped."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if options.docs and options.provider == "cpu":
        raise ServerError("figures of --provider cpu do not belong in --docs; leave it out")
    bench = _bench(options)
    if options.build_only:
        return _build(bench, console)
    for reason in bench.plan.skipped:
        console.print(reason)
    if not options.report_only:
        Wrk("", options.wrk)  # fails early if it is missing
        if options.provider == "cuda":
            gpu.find(bare.environment()).check()
    options.output.mkdir(parents=True, exist_ok=True)
    journal = Journal(
        options.output / "journal.jsonl",
        _header(options, bench),
        same=("version", "provider") if options.report_only else SAME,
    )
    try:
        if not options.report_only:
            with _budget(options.budget):
                _measure(bench, journal, console, retry=options.retry_failed)
    except BudgetSpent:
        console.print(f"stopped after {options.budget:g} s; the same command continues")
    finally:
        _write(options, bench, journal, console)
    return 0


def _bench(options: argparse.Namespace) -> Bench:
    own = re.sub(r"[^A-Za-z0-9._-]+", "_", options.onnx.stem) if options.onnx else ""
    images: list[Source] = list(expand([options.images])) if options.images else []
    images = images or list(parts(PARTS))
    plan = Plan(
        models=tuple(options.models),
        precisions=tuple(options.precisions),
        engines=tuple(options.engines),
        provider=options.provider,
        batches=options.batches,
        clients=options.clients,
        seconds=options.seconds,
        rounds=options.rounds,
        compared=own or options.models[0],
        images=len(images),
    )
    builds = Builds(
        options.repositories or options.output / "repositories", options.weights, own, options.onnx
    )
    return Bench(plan, builds, options.wrk, images, tuple(options.arguments))


def _build(bench: Bench, console: Console) -> int:
    """Build each repository; one that cannot be built does not stop the others."""
    failed = False
    plan = replace(bench.plan, skips=False)  # the installation may change before the measurements
    for setup in dict.fromkeys(each.setup for each in plan.measurements):
        try:
            console.print(f"{setup.model}: {bench.builds.repository(setup)}")
        except UserError as error:
            console.print(f"{setup.model}: {setup.folder} failed: {error}")
            failed = True
    return int(failed)


def _header(options: argparse.Namespace, bench: Bench) -> dict[str, Any]:
    """Describe the machine and what the figures depend on, for the journal."""
    driver = usage.gpu_description()
    machine = report.this_machine(f"{version('nvidia-pytriton')} (nvidia-pytriton)")
    packages = {each.name: each.version for each in distributions() if GPU.match(each.name)}
    return {
        "version": VERSION,
        "provider": options.provider,
        "weights": options.weights,
        "arguments": options.arguments,
        "images": _digest(bench.images),
        "gpu": driver.pop("gpu", ""),
        "driver": driver,
        "machine": asdict(replace(machine, versions=machine.versions | packages)),
    }


def _digest(images: Sequence[Source]) -> str:
    files = (each if isinstance(each, bytes) else Path(str(each)).read_bytes() for each in images)
    return digests.of_text("".join(map(digests.of_bytes, files)))


def _measure(bench: Bench, journal: Journal, console: Console, *, retry: bool) -> None:
    """Measure round after round what the journal lacks."""
    plan = bench.plan
    rounds = [journal.missing(plan.measurements, each, retry=retry) for each in range(plan.rounds)]
    with bars(MofNCompleteColumn(), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("starting", total=sum(map(len, rounds)))
        for number, missing in enumerate(rounds):
            with closing(bench.results(missing, number)) as results:
                for result in results:
                    journal.add(result)
                    progress.update(task, advance=1, description=str(result.measurement))
                    progress.console.print(str(result))
    console.print(f"measured: {sum(map(len, rounds))}")


@contextmanager
def _budget(seconds: float | None) -> Iterator[None]:
    """Raise BudgetSpent in the `with` block, in time to stop a server before `seconds` are over."""

    def stop(*_: object) -> None:
        raise BudgetSpent

    if seconds:
        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, max(seconds - STOP_SECONDS, MIN_SECONDS))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _write(options: argparse.Namespace, bench: Bench, journal: Journal, console: Console) -> None:
    header = journal.header
    result = Report(
        Machine(**header["machine"]),
        {"gpu": header["gpu"], **header["driver"]} if header["gpu"] else {},
        bench.plan,
        journal.results,
        header["weights"],
        header["weights"] if not options.onnx else str(options.onnx.name),
        bool(options.images),
    )
    text = pages.table(result)
    folder = options.output
    (folder / "gpu.md").write_text(text, "utf-8")
    content = json.dumps(result.to_json(), indent=2, ensure_ascii=False)
    (folder / "gpu.json").write_text(content + "\n", "utf-8")
    pages.draw(result, folder / "gpu.png")
    console.print(text)
    console.print(f"{folder}/gpu.md, {folder}/gpu.json, {folder}/gpu.png")
    if options.docs:
        page = options.docs.read_text("utf-8")
        options.docs.write_text(replaced(page, MARKER, f"![Images/s](gpu.png)\n\n{text}"), "utf-8")
        for name in ("gpu.json", "gpu.png"):
            shutil.copy(folder / name, options.docs.parent)


if __name__ == "__main__":
    sys.exit(main())
