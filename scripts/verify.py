"""`python -m scripts.verify`: compare what a server answers with the zoo's published outputs."""

import argparse
import sys
from collections.abc import Collection, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import Progress, TaskID, TaskProgressColumn
from rich.table import Table

from scripts import arguments, cli
from scripts.evaluation import archives, published, tensors
from scripts.evaluation.errors import EvaluationError
from scripts.evaluation.graphs import PROTOCOLS, GraphClient
from scripts.evaluation.published import TOLERANCE, Outcome
from scripts.progress import bars
from scripts.repository import catalog, manifest
from scripts.repository.catalog import CATALOG, ZooModel
from scripts.repository.manifest import Entry

EXAMPLES = """\
  python -m scripts.verify --models resnet50_v1 mobilenetv2 --data archives
  python -m scripts.verify --models all --data models    # a clone of the zoo with Git LFS's files
  python -m scripts.verify --models mobilenetv2 --mirror https://mirror.example/onnx/models
  python -m scripts.verify --archive birds=squeezenet1.1-7.tar.gz --tolerance 1e-4
"""
DATA = Path("build/archives")
TITLES = {"grpc": "gRPC", "http": "HTTP"}
COLUMNS = ("sets", "largest", "relative", "top-1", "top-5", "ms")
CAPTION = (
    "largest: difference of two numbers. relative: that over the standard deviation of the "
    "published output, or over a tenth of its largest value if that is more. top-1, top-5: images "
    "with the same best class, and the same best five. ms: median of a request"
)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = cli.parser(
        "scripts.verify",
        "Send the tensors that the ONNX Model Zoo published with its models to the graphs of a "
        "running server (NAME_onnx), over gRPC and HTTP, and compare the answers with the "
        "published ones. The exit code is 1 if they differ by more than the tolerance. The tensors "
        f"are in the zoo's archives, such as {CATALOG['resnet50_v1'].archive}. "
        f"{archives.WHEREABOUTS}.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=[],
        metavar="NAME",
        help="classifiers of the zoo, or all (default: those that the server has)",
    )
    parser.add_argument(
        "--data",
        type=arguments.path,
        default=DATA,
        metavar="DIR",
        help="folder with the archives, or a clone of the zoo's repository; their sha256 is "
        "verified (default: %(default)s)",
    )
    parser.add_argument(
        "--mirror",
        type=arguments.filled,
        metavar="URL",
        help="download archives that DIR lacks to there; URL has the archives, or the folders of "
        "the zoo's repository (validated/vision/...)",
    )
    parser.add_argument(
        "--archive",
        nargs="+",
        type=archive,
        default=[],
        metavar="[NAME=]FILE",
        help="an archive of any classifier, without sha256; without NAME, the file is named as the "
        "classifier",
    )
    for protocol, address in (("grpc", "localhost:8001"), ("http", "localhost:8000")):
        parser.add_argument(
            f"--{protocol}",
            default=address,
            metavar="HOST:PORT",
            help=f"server's {TITLES[protocol]} port (default: %(default)s)",
        )
    parser.add_argument(
        "--tolerance",
        type=arguments.share,
        default=TOLERANCE,
        metavar="SHARE",
        help="largest relative difference: over the standard deviation of the published output, or "
        "over a tenth of its largest value if that is more (default: %(default)s)",
    )
    parser.add_argument(
        "--model-repository",
        type=arguments.path,
        metavar="DIR",
        help="the repository that the server has, to explain differences (default: "
        f"{cli.DEFAULT_REPOSITORY}, if it is there)",
    )
    return parser


def archive(text: str) -> tuple[str, Path]:
    """Read [NAME=]FILE."""
    name, separator, file = text.partition("=")
    if not separator or "/" in name:
        file = text
        name = Path(text).name.removesuffix(".gz").removesuffix(".tgz").removesuffix(".tar")
    return arguments.filled(name), arguments.path(file)


def main(arguments: list[str] | None = None) -> int:
    """Parse the options and verify."""
    options = parser().parse_args(arguments)
    return cli.run(lambda: verify(options))


def verify(options: argparse.Namespace) -> int:
    """Compare all classifiers, print a table, and name those that differ.

    Raises:
        UserError: an archive is missing, the server does not respond or lacks a classifier, or a
            model repository cannot be read.
    """
    entries = _entries(options.model_repository)
    results: list[tuple[str, list[Outcome]]] = []
    failures = []
    with ExitStack() as stack:
        addresses = ((protocol, getattr(options, protocol)) for protocol in PROTOCOLS)
        clients = [stack.enter_context(closing(GraphClient(*each))) for each in addresses]
        models = _models(options, clients[0].served)
        names = [model.name for model in models] + [name for name, _ in options.archive]
        graphs = [[client.describe(name) for client in clients] for name in names]
        progress = stack.enter_context(bars(TaskProgressColumn()))
        files = _archives(options, models, progress) + [file for _, file in options.archive]
        subjects = list(zip(names, files, graphs, strict=True))
        for name, file, served in progress.track(subjects, description="verifying"):
            try:
                data_sets = tensors.read(file)
                pairs = zip(clients, served, strict=True)
                outcomes = [published.verify(*pair, data_sets) for pair in pairs]
                results.append((name, outcomes))
            except EvaluationError as error:
                failures.append(f"{name}: {error}")
    for name, outcomes in results:
        worst = max(outcomes, key=lambda outcome: outcome.deviation.relative)
        if worst.deviation.relative > options.tolerance:
            failures.append(_failure(name, worst, options.tolerance, entries.get(name)))
    if results:
        Console(highlight=False).print(table(results))
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    if failures:
        return 1
    print(f"All outputs are the published ones, within {options.tolerance:g} (relative).")
    return 0


def table(results: Sequence[tuple[str, Sequence[Outcome]]]) -> Table:
    """Show the outcomes of each classifier, given by its name, a row for each protocol."""
    table = Table("", "", *COLUMNS, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.caption, table.caption_justify = CAPTION, "left"
    for column in table.columns[2:]:
        column.justify = "right"
    for name, outcomes in results:
        for outcome in outcomes:
            deviation = outcome.deviation
            table.add_row(
                name,
                f"{outcome.graph.engine} {TITLES[outcome.protocol]}",
                str(outcome.data_sets),
                f"{deviation.absolute:.1e}",
                f"{deviation.relative:.1e}",
                _share(deviation.top1),
                _share(deviation.top5),
                f"{outcome.milliseconds:.1f}",
            )
    return table


def _share(same: Sequence[bool]) -> str:
    return f"{sum(same)}/{len(same)}" if same else "-"


def _failure(name: str, outcome: Outcome, tolerance: float, entry: Entry | None) -> str:
    return (
        f"{name}: over {TITLES[outcome.protocol]}, outputs differ from the published ones by "
        f"{outcome.deviation.relative:.1e} (relative), more than {tolerance:g}: "
        f"{published.explain(outcome, entry)}"
    )


def _entries(repository: Path | None) -> dict[str, Entry]:
    folder = repository or cli.DEFAULT_REPOSITORY
    if (folder / manifest.FILE).is_file():
        return manifest.read(folder)
    if repository:
        raise EvaluationError(
            f"{repository} has no {manifest.FILE}; give the folder that build_repository wrote"
        )
    return {}


def _models(options: argparse.Namespace, served: Collection[str]) -> list[ZooModel]:
    """Return the zoo's classifiers to verify."""
    if options.models or options.archive:
        return catalog.select(options.models)
    models = [model for name, model in CATALOG.items() if name in served]
    if not models:
        raise EvaluationError(
            f"the server has none of the zoo's classifiers, but {', '.join(served) or 'no other'}; "
            "give --archive for your own"
        )
    return models


def _archives(
    options: argparse.Namespace, models: Sequence[ZooModel], progress: Progress
) -> list[Path]:
    """Find or download the archives of the zoo's classifiers, and verify their sha256."""
    folder = options.data
    if options.mirror:
        for model in models:
            if not archives.find([model], folder):
                task = progress.add_task(f"downloading {model.archive}", total=None)
                report = partial(_advance, progress, task)
                archives.download(model, folder, options.mirror, progress=report)
                progress.remove_task(task)
    found = archives.require(models, folder)
    for model in models:
        archives.check(model, found[model.name])
    return [found[model.name] for model in models]


def _advance(progress: Progress, task: TaskID, done: int, total: int) -> None:
    progress.update(task, completed=done, total=total or None)


if __name__ == "__main__":
    sys.exit(main())
