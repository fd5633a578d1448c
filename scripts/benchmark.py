"""`python -m scripts.benchmark`: what a server makes of this machine, beside the limit."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scripts import cli
from scripts.embedded import EmbeddedServer, Endpoints
from scripts.measuring import PerfAnalyzer, chart, machine, processes, report, subject, tables
from scripts.measuring.figures import Round, Settings
from scripts.measuring.report import Report
from scripts.measuring.rounds import Bench, Target
from scripts.measuring.triton_statistics import Triton
from scripts.measuring.wrk import Wrk

EXAMPLES = """\
  python -m scripts.benchmark
  python -m scripts.benchmark --models mobilenetv2 --seconds 2 --rounds 3 --clients 1,8
  python -m scripts.benchmark --perf-analyzer build/perf/bin/perf_analyzer
  python -m scripts.benchmark --http localhost:8000 --grpc localhost:8001
  python -m scripts.benchmark --output build/after --compare build/benchmark/benchmark.json
"""
DEFAULTS = Settings()
LOCAL = ("localhost", "127.0.0.1", "[::1]")


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = cli.parser(
        "scripts.benchmark",
        "Measure the images per second and the latency of a server, its models with and without "
        "pre- and postprocessing, beside worker processes that do the same work with no server. "
        "All take turns on the same machine, and the ratios are those of the same round. It needs "
        "the load generator wrk.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=["resnet50_v1", "mobilenetv2"],
        metavar="NAME",
        help="default: resnet50_v1 mobilenetv2",
    )
    parser.add_argument(
        "--model-repository",
        type=Path,
        default=cli.DEFAULT_REPOSITORY,
        metavar="DIR",
        help="what is served (default: %(default)s)",
    )
    _add_server(parser)
    _add_settings(parser)
    _add_results(parser)
    return parser


def _add_server(parser: argparse.ArgumentParser) -> None:
    server = parser.add_argument_group("server (default: one is started, and stopped in the end)")
    server.add_argument("--http", metavar="HOST:PORT", help="of one that runs on the repository")
    server.add_argument("--grpc", metavar="HOST:PORT", help="its other port, for perf_analyzer")
    server.add_argument(
        "--perf-analyzer", type=Path, metavar="FILE", help="measure gRPC, too, with this executable"
    )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    settings = parser.add_argument_group("settings")
    settings.add_argument(
        "--seconds",
        type=duration,
        default=DEFAULTS.seconds,
        metavar="N",
        help="of each turn (default: %(default)s)",
    )
    settings.add_argument(
        "--rounds",
        type=cli.count,
        default=DEFAULTS.rounds,
        metavar="N",
        help="turns of each (default: %(default)s)",
    )
    settings.add_argument(
        "--clients",
        type=numbers,
        default=DEFAULTS.clients,
        metavar="N,N",
        help=f"at a time (default: {','.join(map(str, DEFAULTS.clients))})",
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    results = parser.add_argument_group("results")
    results.add_argument(
        "--output",
        type=Path,
        default=Path("build/benchmark"),
        metavar="DIR",
        help="for benchmark.json and benchmark.png (default: %(default)s)",
    )
    results.add_argument(
        "--compare",
        type=Path,
        metavar="BEFORE.json",
        help="show what became of each ratio of an earlier benchmark.json",
    )


def duration(text: str) -> float:
    """Read a number of seconds, for argparse."""
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no time; give seconds above 0")
    return seconds


def numbers(text: str) -> tuple[int, ...]:
    """Read numbers of clients, for argparse: ascending, each once."""
    return tuple(sorted({cli.count(each) for each in text.split(",")}))


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and draw."""
    command = parser()
    options = command.parse_args(arguments)
    if bool(options.http) != bool(options.grpc):
        command.error("--http and --grpc go together")
    return cli.run(lambda: benchmark(options))


def benchmark(options: argparse.Namespace) -> int:
    """Measure every model and show what came out."""
    before = report.read(options.compare) if options.compare else None
    options.output.mkdir(parents=True, exist_ok=True)
    result = _measure(options)
    result.write(options.output / "benchmark.json")
    chart.draw(result, options.output / "benchmark.png")
    console = Console(highlight=False)
    for model in result.rounds:
        console.print(*tables.of_model(result, model))
    if before:
        console.print(*(tables.comparison(before, result, model) for model in result.rounds))
    console.print(f"{options.output}/benchmark.json, {options.output}/benchmark.png")
    return 0


def _measure(options: argparse.Namespace) -> Report:
    settings = Settings(options.seconds, options.rounds, options.clients)
    subjects = [subject.read(options.model_repository, name) for name in options.models]
    rounds: dict[str, list[Round]] = {each.name: [] for each in subjects}
    with ExitStack() as stack:
        target = stack.enter_context(_target(options))
        where = machine.this(target.triton.version())
        benches = {
            each.name: stack.enter_context(Bench(each, target, settings)) for each in subjects
        }
        progress = stack.enter_context(_progress())
        total = settings.rounds * sum(bench.turns for bench in benches.values())
        task = progress.add_task("starting", total=total)
        for _ in range(settings.rounds):
            for name, bench in benches.items():

                def advance(turn: str, name: str = name) -> None:
                    progress.update(task, advance=1, description=f"{name}: {turn}")

                rounds[name].append(bench.round(advance))
    return Report(where, settings, {name: tuple(each) for name, each in rounds.items()})


@contextmanager
def _target(options: argparse.Namespace) -> Iterator[Target]:
    """Use the server that is named, or start one, with no more than what is measured."""
    perf_analyzer = PerfAnalyzer(options.perf_analyzer) if options.perf_analyzer else None
    if options.http:
        wrk = Wrk(options.http)
        with Triton(options.http) as triton:
            host, _, port = options.http.rpartition(":")
            process = processes.find(int(port)) if host in LOCAL else None
            yield Target(triton, wrk, options.grpc, process, perf_analyzer)
        return
    endpoints = Endpoints.free()
    http, grpc = f"{endpoints.host}:{endpoints.http}", f"{endpoints.host}:{endpoints.grpc}"
    wrk = Wrk(http)  # says that it is missing before anything is started
    models = [part for name in options.models for part in (name, f"{name}_onnx")]
    server = EmbeddedServer(options.model_repository, models=models, endpoints=endpoints)
    with server, Triton(http) as triton:
        process = processes.find(endpoints.http)
        yield Target(triton, wrk, grpc, process, perf_analyzer)


def _progress() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(TextColumn("{task.description}"), *columns, console=console, transient=True)


if __name__ == "__main__":
    sys.exit(main())
