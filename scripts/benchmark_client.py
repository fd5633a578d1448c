"""`python -m scripts.benchmark_client`: the cost of the Python client and of the load test."""

import argparse
import itertools
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from client import Classifier
from scripts import arguments, cli
from scripts.embedded import ServerError
from scripts.embedded.access import key_headers, read_key
from scripts.errors import last_line
from scripts.measuring.perf_analyzer import PerfAnalyzer
from scripts.measuring.pictures import picture
from scripts.measuring.wrk import InferRequest, Wrk

EXAMPLES = """\
  python -m scripts.benchmark_client --perf-analyzer build/perf/bin/perf_analyzer
  python -m scripts.benchmark_client --model resnet50_v1 --images 200 --rounds 10
  python -m scripts.benchmark_client --shared-memory --admin-key-file admin.key --format BMP
  python -m scripts.benchmark_client --locust --size 320x240 --images 1000 --rounds 3
"""
WARM_UP = 4  # times the concurrency
LOCUSTFILE = "tests/load/locustfile.py"
LOCUST_START_SECONDS = 3  # Locust imports its modules and starts its users
LOCUST_SECONDS = 5


@dataclass(frozen=True)
class Measurement:
    """One turn: requests or images per second, and CPU time for each of them in milliseconds."""

    rate: float
    cpu_ms: float = 0.0


@dataclass(frozen=True)
class Variant:
    """A named variant; `measure` runs it for one turn."""

    name: str
    measure: Callable[[], Measurement]


@dataclass(frozen=True)
class Comparison:
    """Variants measured round after round and compared with the first one.

        comparison = Comparison([Variant("before", old), Variant("after", new)])
        for name in comparison.run(rounds=5): ...
        print(comparison.ratios("after"))

    The speed of a machine changes from minute to minute. Ratios within a round stay stable.
    """

    variants: Sequence[Variant]
    measured: dict[str, list[Measurement]] = field(default_factory=dict)

    def run(self, rounds: int) -> Iterator[str]:
        """Measure all variants in each round and yield the name of each measured variant."""
        for _ in range(rounds):
            for variant in self.variants:
                self.measured.setdefault(variant.name, []).append(variant.measure())
                yield variant.name

    def rate(self, name: str) -> float:
        """Return the median rate of a variant."""
        return statistics.median(each.rate for each in self.measured[name])

    def cpu_ms(self, name: str) -> list[float]:
        """Return the CPU milliseconds per request of a variant in each round."""
        return [each.cpu_ms for each in self.measured[name]]

    def ratios(self, name: str) -> list[float]:
        """Return the ratio of a variant's rate to the first variant's in each round."""
        first = self.measured[self.variants[0].name]
        pairs = zip(self.measured[name], first, strict=True)
        return [one.rate / other.rate for one, other in pairs]


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = cli.parser(
        "scripts.benchmark_client",
        "Measure images per second and CPU time per image of this client on a running server, "
        "compared with Triton's perf_analyzer over gRPC, with shared memory, or with the load "
        "test. The variants take turns, and ratios are computed within a round.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--grpc",
        default="localhost:8001",
        metavar="HOST:PORT",
        help="server's gRPC port (default: %(default)s)",
    )
    parser.add_argument(
        "--http",
        default="localhost:8000",
        metavar="HOST:PORT",
        help="server's HTTP port (default: %(default)s)",
    )
    parser.add_argument("--model", default="mobilenetv2", help="default: %(default)s")
    _add_count(parser, "--concurrency", 8, "concurrent requests")
    _add_count(parser, "--images", 500, "images in each turn")
    _add_count(parser, "--rounds", 5, "turns of each variant")
    parser.add_argument(
        "--size",
        type=arguments.size,
        default=(256, 256),
        metavar="WxH",
        help="image size in pixels (default: 256x256)",
    )
    parser.add_argument("--format", default="JPEG", help="JPEG (default), PNG, BMP ...")
    parser.add_argument(
        "--perf-analyzer", type=Path, metavar="FILE", help="compare with this perf_analyzer"
    )
    parser.add_argument(
        "--admin-key-file", type=Path, metavar="FILE", help="key of the server for --shared-memory"
    )
    compared = parser.add_mutually_exclusive_group()
    compared.add_argument(
        "--shared-memory", action="store_true", help="compare shared memory with sockets"
    )
    compared.add_argument(
        "--locust",
        action="store_true",
        help=f"measure the load test ({LOCUSTFILE}) instead of the client, and wrk if installed",
    )
    return parser


def _add_count(parser: argparse.ArgumentParser, name: str, default: int, text: str) -> None:
    parser.add_argument(
        name,
        type=arguments.count,
        default=default,
        metavar="N",
        help=f"{text} (default: {default})",
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    command = parser()
    options = command.parse_args(arguments)
    if options.shared_memory and options.perf_analyzer:
        command.error("--shared-memory does not go with --perf-analyzer")
    return cli.run(lambda: benchmark(options))


def benchmark(options: argparse.Namespace) -> int:
    """Measure all variants and print a table."""
    try:
        image = picture(options.size, options.format)
    except ValueError as error:
        raise ServerError(str(error)) from error
    comparisons = [Comparison(variants) for variants in _variants(options, image)]
    console = Console(highlight=False)
    width, height = options.size
    console.print(
        f"{options.model}, {options.format} {width}x{height} ({len(image):,} bytes), "
        f"{options.concurrency} concurrent, {options.rounds} x {options.images} images"
    )
    total = options.rounds * sum(len(comparison.variants) for comparison in comparisons)
    runs = itertools.chain.from_iterable(each.run(options.rounds) for each in comparisons)
    for _ in track(runs, total=total, transient=True, console=Console(stderr=True)):
        pass
    console.print(table(comparisons))
    return 0


def table(comparisons: list[Comparison]) -> Table:
    """Return medians and ranges: ratios to the first variant, and CPU time per image."""
    columns = ("images/s", "ratio", "min", "max", "CPU ms", "min", "max")
    table = Table("", *columns, box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for comparison in comparisons:
        for variant in comparison.variants:
            row = [f"{comparison.rate(variant.name):.1f}"]
            for values in (comparison.ratios(variant.name), comparison.cpu_ms(variant.name)):
                each = (statistics.median(values), min(values), max(values))
                row += [f"{number:.3f}" for number in each]
            table.add_row(variant.name, *row)
    return table


def _variants(options: argparse.Namespace, image: bytes) -> list[list[Variant]]:
    urls = {"gRPC": f"grpc://{options.grpc}", "HTTP": f"http://{options.http}"}
    if options.shared_memory:
        return [
            [
                Variant(f"{name} socket", _stream(options, image, url)),
                Variant(f"{name} shared memory", _stream(options, image, url, shared_memory=True)),
            ]
            for name, url in urls.items()
        ]
    variants = []
    if options.perf_analyzer:
        analyzer = PerfAnalyzer(options.perf_analyzer)
        run = partial(_perf_analyzer, options, image, analyzer)
        variants.append(Variant("gRPC perf_analyzer", run))
    if options.locust and shutil.which("wrk"):
        run = partial(_wrk, options, image, Wrk(options.http))
        variants.append(Variant("HTTP wrk", run))
    for name, url in urls.items():
        if options.locust:
            variants.append(Variant(f"{name} Locust", partial(_locust, options, url)))
        else:
            variants.append(Variant(f"{name} client", _stream(options, image, url)))
    return [variants]


def _stream(
    options: argparse.Namespace, image: bytes, url: str, *, shared_memory: bool = False
) -> Callable[[], Measurement]:
    headers = key_headers(read_key(options.admin_key_file)) if options.admin_key_file else {}
    classifier = Classifier(url, model=options.model, shared_memory=shared_memory, headers=headers)

    def send(count: int) -> None:
        images = itertools.repeat(image, count)
        for result in classifier.stream(images, concurrency=options.concurrency):
            if result.error:
                raise ServerError(str(result.error))

    def measure() -> Measurement:
        send(WARM_UP * options.concurrency)
        start, cpu = time.perf_counter(), _cpu(resource.RUSAGE_SELF)
        send(options.images)
        rate = options.images / (time.perf_counter() - start)
        return Measurement(rate, 1000 * (_cpu(resource.RUSAGE_SELF) - cpu) / options.images)

    return measure


def _perf_analyzer(
    options: argparse.Namespace, image: bytes, analyzer: PerfAnalyzer
) -> Measurement:
    cpu = _cpu(resource.RUSAGE_CHILDREN)
    rate = analyzer.rate(
        options.model, options.grpc, image, clients=options.concurrency, count=options.images
    )
    return Measurement(rate, 1000 * (_cpu(resource.RUSAGE_CHILDREN) - cpu) / options.images)


def _wrk(options: argparse.Namespace, image: bytes, wrk: Wrk) -> Measurement:
    request = InferRequest(options.model, image, 0)
    cpu = _cpu(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    rate = wrk.closed_loop(request, clients=options.concurrency, seconds=LOCUST_SECONDS)["rate"]
    seconds = time.perf_counter() - start
    cpu = _cpu(resource.RUSAGE_CHILDREN) - cpu
    return Measurement(rate, 1000 * cpu / seconds / rate)


def _locust(options: argparse.Namespace, url: str) -> Measurement:
    """Run one Locust process and sample its CPU time after its start."""
    width, height = options.size
    command = [
        *(sys.executable, "-m", "locust", "-f", LOCUSTFILE, "--headless", "--only-summary"),
        *("--host", url, "--model", options.model, "--sizes", f"{width}x{height}"),
        *("-u", str(options.concurrency), "-r", "100"),
        *("-t", str(LOCUST_SECONDS + 2 * LOCUST_START_SECONDS)),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        watched = psutil.Process(process.pid)
        time.sleep(LOCUST_START_SECONDS)
        start, before = time.perf_counter(), watched.cpu_times()
        time.sleep(LOCUST_SECONDS)
        seconds, after = time.perf_counter() - start, watched.cpu_times()
        output, _ = process.communicate()
    found = re.search(r"Aggregated +\d+ +0\(.*\| +([\d.]+) +0\.00$", output, re.MULTILINE)
    if process.returncode or not found:
        raise ServerError(f"Locust failed: {last_line(output)}")
    cpu = after.user + after.system - before.user - before.system
    return Measurement(float(found[1]), 1000 * cpu / seconds / float(found[1]))


def _cpu(who: int) -> float:
    """Return the CPU seconds of this process or of its finished children."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
