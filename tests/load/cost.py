"""`python -m tests.load.cost`: what a request costs this load test, beside C++ generators."""

import argparse
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from scripts import cli
from scripts.embedded import ServerError
from scripts.measuring import PerfAnalyzer
from tests.load.options import Size
from tests.load.traffic import jpeg

EXAMPLES = """\
  python -m tests.load.cost --perf-analyzer build/perf/bin/perf_analyzer
  python -m tests.load.cost --model birds --users 32 --rounds 5
"""
SIZE: Size = (320, 240)
START_SECONDS = 3  # in which Locust is imported and its users begin
LUA = """
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Inference-Header-Content-Length"] = "0"
"""


@dataclass(frozen=True)
class Cost:
    """Requests per second, and the generator's CPU time for each in milliseconds."""

    rate: float
    milliseconds: float


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = cli.parser(
        "tests.load.cost",
        "Measure, on a running server, what each load generator does with its CPU: one Locust "
        "process, and perf_analyzer and wrk where they are. They take turns.",
        examples=EXAMPLES,
    )
    for protocol, port in (("grpc", 8001), ("http", 8000)):
        parser.add_argument(
            f"--{protocol}",
            default=f"127.0.0.1:{port}",
            metavar="HOST:PORT",
            help="default: %(default)s",
        )
    parser.add_argument("--model", default="mobilenetv2", help="default: %(default)s")
    for name, default, what in (
        ("users", 8, "requests at a time"),
        ("seconds", 5, "in each turn"),
        ("rounds", 3, "turns of each"),
    ):
        parser.add_argument(
            f"--{name}",
            type=cli.count,
            default=default,
            metavar="N",
            help=f"{what} (default: {default})",
        )
    parser.add_argument("--perf-analyzer", type=Path, metavar="FILE", help="its executable")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    options = parser().parse_args(arguments)
    return cli.run(lambda: compare(options))


def compare(options: argparse.Namespace) -> int:
    """Let the generators take turns, and print medians and ranges."""
    generators = _generators(options)
    costs: dict[str, list[Cost]] = {name: [] for name in generators}
    for _ in range(options.rounds):
        for name, measure in generators.items():
            costs[name].append(measure())
    print(f"{options.model}, {options.users} at a time, JPEG of {SIZE[0]}x{SIZE[1]}")
    for name, each in costs.items():
        rate = statistics.median(cost.rate for cost in each)
        spent = [cost.milliseconds for cost in each]
        print(
            f"{name:15} {rate:>7.0f} requests/s  "
            f"{statistics.median(spent):.3f} ms CPU each ({min(spent):.3f} to {max(spent):.3f})"
        )
    return 0


def _generators(options: argparse.Namespace) -> dict[str, Callable[[], Cost]]:
    generators = {
        "Locust, gRPC": lambda: _locust(options, f"grpc://{options.grpc}"),
        "Locust, HTTP": lambda: _locust(options, f"http://{options.http}"),
    }
    if options.perf_analyzer:
        analyzer = PerfAnalyzer(options.perf_analyzer)
        generators["perf_analyzer"] = lambda: _perf_analyzer(options, analyzer)
    if shutil.which("wrk"):
        generators["wrk"] = lambda: _wrk(options)
    return generators


def _locust(options: argparse.Namespace, host: str) -> Cost:
    arguments = [
        *("-f", "tests/load/locustfile.py", "--headless", "--only-summary", "--host", host),
        *("--model", options.model, "--sizes", f"{SIZE[0]}x{SIZE[1]}", "-r", "100"),
        *("-u", str(options.users), "-t", str(options.seconds + 2 * START_SECONDS)),
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "locust", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        watched = psutil.Process(process.pid)
        time.sleep(START_SECONDS)
        start, before = time.perf_counter(), watched.cpu_times()
        time.sleep(options.seconds)
        seconds, after = time.perf_counter() - start, watched.cpu_times()
        said, _ = process.communicate()
    found = re.search(r"Aggregated +\d+ +0\(.*\| +([\d.]+) +0\.00$", said, re.MULTILINE)
    if process.returncode or not found:
        raise ServerError(f"Locust failed: {said.splitlines()[-1] if said else 'it says nothing'}")
    rate = float(found[1])
    spent = after.user + after.system - before.user - before.system
    return Cost(rate, 1000 * spent / seconds / rate)


def _perf_analyzer(options: argparse.Namespace, analyzer: PerfAnalyzer) -> Cost:
    def run(count: int) -> float:
        return analyzer.rate(
            options.model, options.grpc, jpeg(SIZE), concurrency=options.users, count=count
        )

    count = int(run(20 * options.users) * options.seconds)
    before = _children()
    rate = run(count)
    return Cost(rate, 1000 * (_children() - before) / count)


def _wrk(options: argparse.Namespace) -> Cost:
    with tempfile.TemporaryDirectory() as name:
        script, body = Path(name) / "post.lua", Path(name) / "body.jpg"
        script.write_text(LUA)
        body.write_bytes(jpeg(SIZE))
        before = _children()
        said = subprocess.run(
            [
                *("wrk", "--threads", "1", "--connections", str(options.users)),
                *("--duration", f"{options.seconds}s", "--script", str(script)),
                f"http://{options.http}/v2/models/{options.model}/infer",
            ],
            env=os.environ | {"BODY": str(body)},
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        spent = _children() - before
    found = re.search(r"(\d+) requests in.*Requests/sec: +([\d.]+)", said, re.DOTALL)
    if not found or "Non-2xx" in said:
        raise ServerError(f"wrk failed: {' '.join(said.split())}")
    return Cost(float(found[2]), 1000 * spent / int(found[1]))


def _children() -> float:
    """CPU seconds of the processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
