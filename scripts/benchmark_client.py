"""`python -m scripts.benchmark_client`: what the Python client costs, beside a C++ one."""

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from client import Classifier
from scripts import cli
from scripts.embedded import ServerError
from scripts.measuring import Comparison, PerfAnalyzer, Variant
from scripts.measuring.pictures import picture

EXAMPLES = """\
  python -m scripts.benchmark_client --perf-analyzer build/perf/bin/perf_analyzer
  python -m scripts.benchmark_client --model resnet50_v1 --images 200 --rounds 10
  python -m scripts.benchmark_client --shared-memory --format BMP --size 4000x3000 --images 20
"""
WARM_UP = 4  # times the concurrency


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = cli.parser(
        "scripts.benchmark_client",
        "Measure the images per second that a running server gives to this client: beside Triton's "
        "own perf_analyzer over gRPC, or with shared memory beside without. The variants take "
        "turns, and the ratios are those of neighbours.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--grpc", default="localhost:8001", metavar="HOST:PORT", help="of the server"
    )
    parser.add_argument(
        "--http", default="localhost:8000", metavar="HOST:PORT", help="of the server"
    )
    parser.add_argument("--model", default="mobilenetv2", help="default: %(default)s")
    parser.add_argument(
        "--concurrency", type=cli.count, default=8, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--images",
        type=cli.count,
        default=500,
        metavar="N",
        help="in each turn (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=cli.count,
        default=5,
        metavar="N",
        help="turns of each (default: %(default)s)",
    )
    parser.add_argument(
        "--size", default="256x256", metavar="WxH", help="of the picture (default: %(default)s)"
    )
    parser.add_argument("--format", default="JPEG", help="JPEG (the default), PNG, BMP ...")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--perf-analyzer", type=Path, metavar="FILE", help="compare with this executable"
    )
    what.add_argument(
        "--shared-memory", action="store_true", help="compare shared memory with sockets"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    options = parser().parse_args(arguments)
    return cli.run(lambda: benchmark(options))


def benchmark(options: argparse.Namespace) -> int:
    """Let the variants take turns."""
    image = picture(options.size, options.format)
    comparisons = [Comparison(variants) for variants in _variants(options, image)]
    console = Console(highlight=False)
    console.print(
        f"{options.model}, {options.format} {options.size} ({len(image):,} bytes), "
        f"{options.concurrency} at a time, {options.rounds} x {options.images} images"
    )
    total = options.rounds * sum(len(comparison.variants) for comparison in comparisons)
    runs = itertools.chain.from_iterable(each.run(options.rounds) for each in comparisons)
    for _ in track(runs, "measuring", total=total, console=Console(stderr=True), transient=True):
        pass
    console.print(table(comparisons))
    return 0


def table(comparisons: list[Comparison]) -> Table:
    """Show medians, and the ratios to the first variant with their range."""
    table = Table("", "images/s", "ratio", "from", "to", box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for comparison in comparisons:
        for variant in comparison.variants:
            ratios = comparison.ratios(variant.name)
            numbers = (comparison.ratio(variant.name), min(ratios), max(ratios))
            rate = f"{comparison.rate(variant.name):.1f}"
            table.add_row(variant.name, rate, *(f"{number:.3f}" for number in numbers))
    return table


def _variants(options: argparse.Namespace, image: bytes) -> list[list[Variant]]:
    send = partial(_stream, options, image)
    grpc, http = f"grpc://{options.grpc}", f"http://{options.http}"
    if options.shared_memory:
        return [
            [
                Variant(f"{url} socket", send(url)),
                Variant(f"{url} shared memory", send(url, shared_memory=True)),
            ]
            for url in (grpc, http)
        ]
    streams = [Variant(f"{url} client", send(url)) for url in (grpc, http)]
    if not options.perf_analyzer:
        return [streams]
    theirs = partial(
        PerfAnalyzer(options.perf_analyzer).rate,
        options.model,
        options.grpc,
        image,
        concurrency=options.concurrency,
        count=options.images,
    )
    return [[Variant(f"{grpc} perf_analyzer", theirs), *streams]]


def _stream(
    options: argparse.Namespace, image: bytes, url: str, *, shared_memory: bool = False
) -> Callable[[], float]:
    classifier = Classifier(url, model=options.model, shared_memory=shared_memory)

    def send(count: int) -> None:
        images = itertools.repeat(image, count)
        for result in classifier.stream(images, concurrency=options.concurrency):
            if result.error:
                raise ServerError(str(result.error))

    def rate() -> float:
        send(WARM_UP * options.concurrency)
        start = time.perf_counter()
        send(options.images)
        return float(options.images / (time.perf_counter() - start))

    return rate


if __name__ == "__main__":
    sys.exit(main())
