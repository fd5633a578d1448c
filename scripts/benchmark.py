"""`python -m scripts.benchmark`: a server's throughput and latency, compared with baselines."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeElapsedColumn

from scripts import arguments, cli
from scripts.embedded import EmbeddedServer, Endpoints
from scripts.measuring import chart, report, subject, tables, triton
from scripts.measuring.figures import BenchmarkPlan, Figures
from scripts.measuring.report import Report, Setup
from scripts.measuring.rounds import Bench
from scripts.measuring.wrk import Wrk
from scripts.progress import bars

EXAMPLES = """\
  python -m scripts.benchmark
  python -m scripts.benchmark --models mobilenetv2 --seconds 2 --rounds 3 --clients 1,8
  python -m scripts.benchmark --http localhost:8000
  python -m scripts.benchmark --against build/fp32    # another build, measured in the same run
  python -m scripts.benchmark --output build/after --compare build/benchmark/benchmark.json
"""
DEFAULTS = BenchmarkPlan()


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = cli.parser(
        "scripts.benchmark",
        "Measure throughput and latency of a server, for each model with and without pre- and "
        "postprocessing. Worker processes that do the same work without a server are the baseline "
        "(Pillow and onnxruntime) and the upper bound (the code of the preprocessing step and the "
        "faster of onnxruntime and OpenVINO). All take turns on this machine, and ratios are "
        "computed within a round. Requires the load generator wrk.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=["resnet50_v1", "mobilenetv2"],
        metavar="NAME",
        help="models to measure (default: resnet50_v1 mobilenetv2)",
    )
    parser.add_argument(
        "--model-repository",
        type=Path,
        default=cli.DEFAULT_REPOSITORY,
        metavar="DIR",
        help="model repository of the server (default: %(default)s)",
    )
    _add_server(parser)
    _add_plan(parser)
    _add_results(parser)
    return parser


def _add_server(parser: argparse.ArgumentParser) -> None:
    server = parser.add_argument_group("server (default: start one and stop it at the end)")
    server.add_argument("--http", metavar="HOST:PORT", help="running server on the repository")
    server.add_argument(
        "--against",
        type=arguments.path,
        metavar="DIR",
        help="model repository with another build of the models: a second server is started on it, "
        "the ensembles of both take turns, and a table shows their ratios",
    )


def _add_plan(parser: argparse.ArgumentParser) -> None:
    plan = parser.add_argument_group("plan")
    plan.add_argument(
        "--seconds",
        type=arguments.seconds,
        default=DEFAULTS.seconds,
        metavar="N",
        help="duration of each turn (default: %(default)s)",
    )
    plan.add_argument(
        "--rounds",
        type=arguments.count,
        default=DEFAULTS.rounds,
        metavar="N",
        help="turns of each variant (default: %(default)s)",
    )
    plan.add_argument(
        "--clients",
        type=clients,
        default=DEFAULTS.clients,
        metavar="N,N",
        help=f"concurrent clients (default: {','.join(map(str, DEFAULTS.clients))})",
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    results = parser.add_argument_group("results")
    results.add_argument(
        "--output",
        type=Path,
        default=Path("build/benchmark"),
        metavar="DIR",
        help="folder for benchmark.json and benchmark.png (default: %(default)s)",
    )
    results.add_argument(
        "--compare",
        type=Path,
        metavar="BEFORE.json",
        help="show the change of each ratio since an earlier run, which wrote this benchmark.json; "
        "to compare two builds in one run, use --against",
    )


def clients(text: str) -> tuple[int, ...]:
    """Read numbers of clients for argparse; returns them ascending, without repetition."""
    return tuple(sorted(set(arguments.counts(text))))


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parser().parse_args(arguments)
    return cli.run(lambda: benchmark(options))


def benchmark(options: argparse.Namespace) -> int:
    """Measure every model, write the results and print them."""
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
    plan = BenchmarkPlan(options.seconds, options.rounds, options.clients)
    subjects = [subject.read(options.model_repository, name) for name in options.models]
    others = [subject.read(options.against, name) for name in options.models if options.against]
    with ExitStack() as stack:
        wrk = stack.enter_context(_server(options, subjects))
        other = stack.enter_context(_started(options.against, options.models)) if others else None
        where = report.this_machine(triton.version(wrk.address))
        benches = {
            each.name: stack.enter_context(closing(Bench(each, wrk, plan, other)))
            for each in subjects
        }
        rounds = _rounds(benches, plan.rounds)
    builds = {each.name: each.build for each in others}
    setups = {
        each.name: Setup(each.build, benches[each.name].precisions, builds.get(each.name))
        for each in subjects
    }
    return Report(where, plan, rounds, setups)


def _rounds(benches: dict[str, Bench], count: int) -> dict[str, tuple[Figures, ...]]:
    """Measure round after round, in each of them every model."""
    rounds: dict[str, list[Figures]] = {name: [] for name in benches}
    with bars(MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        total = count * sum(bench.turns for bench in benches.values())
        task = progress.add_task("starting", total=total)
        for _ in range(count):
            for name, bench in benches.items():

                def advance(turn: str, name: str = name) -> None:
                    progress.update(task, advance=1, description=f"{name}: {turn}")

                rounds[name].append(bench.round(advance))
    return {name: tuple(each) for name, each in rounds.items()}


@contextmanager
def _server(options: argparse.Namespace, subjects: list[subject.Subject]) -> Iterator[Wrk]:
    """Return wrk for the given server, or for a new one with the measured models only."""
    if options.http:
        yield Wrk(options.http)
        return
    models = [model for each in subjects for model in (each.name, each.onnx_name)]
    with _started(options.model_repository, models) as wrk:
        yield wrk


@contextmanager
def _started(repository: Path, models: list[str]) -> Iterator[Wrk]:
    endpoints = Endpoints.free()
    wrk = Wrk(endpoints.at("http"))  # fails early if wrk is missing
    # At the end no request is in flight, for which Triton would wait.
    at_once = ["--exit-timeout-secs=0"]
    with EmbeddedServer(repository, models=models, endpoints=endpoints, arguments=at_once):
        yield wrk


if __name__ == "__main__":
    sys.exit(main())
