"""`python -m scripts.demo`: builds a repository, serves it and classifies a photograph."""

import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.panel import Panel

from client import classify
from scripts import build_repository, cli
from scripts.embedded import EmbeddedServer, Endpoints

MODEL = "resnet50_v1"
EXAMPLES = """\
  python -m scripts.demo
"""
MEANINGLESS = "SYNTHETIC WEIGHTS: the predictions below mean nothing."


def main(arguments: list[str] | None = None) -> int:
    """Run every step from a zoo file to a label; only the download remains afterwards."""
    cli.parser(
        "scripts.demo",
        f"Build a repository with {MODEL}, serve it with the Triton that pip installs, classify a "
        "photograph over gRPC, and stop.",
        examples=EXAMPLES,
    ).parse_args(arguments)
    return cli.run(demo)


def demo() -> int:
    """Build a repository, serve it, classify a photograph and stop."""
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="triton-demo-") as folder:
        repository = Path(folder, "model_repository")
        exit_code = _build(console, repository)
        return exit_code or _serve_and_classify(console, repository)


def _build(console: Console, repository: Path) -> int:
    console.print(f"[bold]1. Building a model repository with {MODEL}")
    options = ["--models", MODEL, "--output", str(repository)]
    if build_repository.main([*options, "--weights", "zoo"]) == 0:
        return 0
    console.print(
        Panel(
            f"[bold]{MEANINGLESS}[/bold]\n"
            "The real weights are not available, for the reason above. Everything else is real.",
            border_style="yellow",
        )
    )
    return build_repository.main([*options, "--weights", "synthetic"])


def _serve_and_classify(console: Console, repository: Path) -> int:
    console.print("[bold]2. Starting Triton")
    start = time.perf_counter()
    with EmbeddedServer(repository, endpoints=Endpoints.free()) as server:
        url = server.endpoints.at("grpc")
        console.print(f"ready at {url} after {time.perf_counter() - start:.1f} s")
        console.print("[bold]3. Classifying over gRPC")
        exit_code = classify.main(["--url", url, "--model", MODEL])
    console.print("[bold]4. Triton is stopped")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
