"""`python -m scripts.evaluate`: accuracy of served classifiers, and agreement with a reference."""

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scripts import cli
from scripts.evaluation import confusion, journal, report, results
from scripts.evaluation.datasets import Dataset, open_dataset, open_unlabelled
from scripts.evaluation.errors import EvaluationError
from scripts.evaluation.journal import Identity, Record
from scripts.evaluation.reference import Reference, open_reference
from scripts.evaluation.report import Data, Report
from scripts.evaluation.results import REFERENCE, Agreement
from scripts.evaluation.run import Run
from scripts.evaluation.served import BEST, Served, Server, describe
from scripts.evaluation_options import parser, server_of
from scripts.progress import SpeedColumn, bars
from scripts.repository.tuning import MAX_TOP_K

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """A model, its journal, and what its answers are compared with."""

    served: Served
    file: Path
    reference: Reference | None
    identity: Identity


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parser().parse_args(arguments)
    return cli.run(lambda: evaluate(options))


def evaluate(options: argparse.Namespace) -> int:
    """Evaluate each model, write the results and print them.

    Raises:
        EvaluationError: an input cannot be used, the server is lost, or a result is too low.
    """
    server = server_of(options)
    names = list(dict.fromkeys(options.models))
    served = [describe(server, name, options.labels) for name in names]
    _check_labels(served)
    dataset = _dataset(options, served[0].labels)
    options.output.mkdir(parents=True, exist_ok=True)
    targets = [_target(options, each, dataset) for each in served]
    for target in targets:
        _evaluate(options, server, dataset, target)
    found = _report(options, dataset, targets)
    report.write(found, options.output)
    for result in found.results:
        if result.accuracy:
            file = options.output / report.picture(result.model)
            confusion.draw(result.accuracy.confusion, found.labels, file)
    _print(found, options.output)
    _fail_under(options, found)
    return 0


def _check_labels(served: list[Served]) -> None:
    first = served[0]
    for other in served[1:]:
        if other.labels != first.labels:
            raise EvaluationError(
                f"{first.name} and {other.name} have different classes; evaluate them separately"
            )


def _dataset(options: argparse.Namespace, labels: tuple[str, ...]) -> Dataset:
    """Open the data; without labels if there are none and they are not needed."""
    needs_labels = options.ground_truth or options.synsets or options.fail_under is not None
    can_compare = options.reference or len(options.models) > 1
    try:
        dataset = open_dataset(
            options.data, labels, ground_truth=options.ground_truth, synsets=options.synsets
        )
    except EvaluationError as error:
        if needs_labels or not can_compare:
            raise
        dataset = open_unlabelled(options.data)
        logger.warning("%s; only the agreement is measured", error)
    return dataset.limited(options.limit) if options.limit else dataset


def _target(options: argparse.Namespace, served: Served, dataset: Dataset) -> Target:
    reference = _reference(options, served.name)
    identity = Identity(
        served.name,
        served.classes,
        len(dataset),
        dataset.sha256,
        served.labels_sha256,
        dict(served.recipe),
        list(served.sample),
        reference.sha256 if reference else None,
    )
    return Target(served, options.output / f"{served.name}.jsonl", reference, identity)


def _reference(options: argparse.Namespace, name: str) -> Reference | None:
    if not options.reference:
        return None
    file = options.reference if isinstance(options.reference, Path) else None
    return open_reference(name, options.model_repository, file, weights=options.weights)


def _evaluate(
    options: argparse.Namespace, server: Server, dataset: Dataset, target: Target
) -> None:
    """Send the images that the journal lacks."""
    name, total = target.served.name, len(dataset)
    top_k = min(target.served.classes, MAX_TOP_K if target.reference else BEST)
    opened = journal.opened(target.file, target.identity, restart=options.restart)
    with opened as written, server.classifier(name, top_k) as classifier:
        running = _Running()
        done = {record.name for record in map(running.add, written.records())}
        if done:
            _say(_continues(name, len(done), total, target.file))
        run = Run(classifier, dataset, concurrency=options.concurrency, reference=target.reference)
        try:
            with _progress() as progress, closing(run.records(done)) as records:
                task = progress.add_task(name, total=total, completed=len(done), figures="")
                for record in records:
                    written.append(record)
                    running.add(record)
                    progress.update(task, advance=1, figures=str(running))
        except KeyboardInterrupt:
            _say(f"stopped after {running.done(total)} of {name}; the same command continues")
            raise
        except EvaluationError as error:
            raise EvaluationError(f"{name}, after {running.done(total)}: {error}") from error


def _continues(name: str, done: int, total: int, file: Path) -> str:
    if done == total:
        return f"{name}: all {total:,} images are in {file} already; --restart begins anew"
    return f"{name}: continues after {done:,} of {total:,} images"


class _Running:
    """The figures that are shown while the images are sent."""

    def __init__(self) -> None:
        self.images = self.right = self.labelled = self.failed = 0

    def add(self, record: Record) -> Record:
        self.images += 1
        self.labelled += record.label is not None
        self.right += record.label is not None and record.label in record.classes[:1]
        self.failed += record.error is not None
        return record

    def done(self, total: int) -> str:
        return f"{self.images:,} of {total:,} images"

    def __str__(self) -> str:
        top1 = f"top-1 {self.right / self.labelled:.2%}" if self.labelled else ""
        failed = f"{self.failed:,} failed" if self.failed else ""
        return "  ".join(filter(None, (top1, failed)))


def _progress() -> Progress:
    figures = TextColumn("{task.fields[figures]}")
    return bars(MofNCompleteColumn(), figures, SpeedColumn("images"), TimeRemainingColumn())


def _report(options: argparse.Namespace, dataset: Dataset, targets: list[Target]) -> Report:
    first = targets[0].served
    found = [results.result(each.served.name, each.file, first.classes) for each in targets]
    published = {each.served.name: each.served.published for each in targets}
    return Report(
        Data(str(options.data), dataset.layout, dataset.sha256, len(dataset)),
        first.labels,
        tuple(found),
        tuple(_agreements(targets)),
        {name: figures for name, figures in published.items() if figures},
    )


def _agreements(targets: list[Target]) -> Iterator[Agreement]:
    first, *others = targets
    classes = first.served.classes
    for each in targets:
        if each.reference:
            agreement = results.with_reference(each.served.name, each.file, classes)
            yield from filter(None, [agreement])
    for each in others:
        names = (each.served.name, each.file, first.served.name, first.file)
        yield from filter(None, [results.with_baseline(*names, classes)])


def _print(found: Report, folder: Path) -> None:
    console = Console(highlight=False)
    for sheet in (*found.sheets(), *found.details()):
        console.print(sheet.to_rich())
    console.print()
    for line in (*found.sentences(), f"Written to {folder}: report.md, report.json, and more"):
        console.print(line, markup=False, soft_wrap=True)


def _fail_under(options: argparse.Namespace, found: Report) -> None:
    """Compare the values, not the bounds of their intervals, with the least ones.

    Raises:
        EvaluationError: one is too low, or missing.
    """
    names = [each.model for each in found.results]
    top1 = {each.model: each.accuracy.top1 for each in found.results if each.accuracy}
    agreeing = {each.model: each.top1 for each in found.agreements if each.other == REFERENCE}
    for what, shares, least in (
        ("top-1 accuracy", top1, options.fail_under),
        ("agreement with the reference", agreeing, options.fail_under_agreement),
    ):
        if least is None:
            continue
        if unknown := [name for name in names if name not in shares]:
            raise EvaluationError(f"no {what}, as no image can be compared: {', '.join(unknown)}")
        if low := [name for name, share in shares.items() if 100 * share.value < least]:
            values = ", ".join(f"{name} {shares[name].value:.2%}" for name in low)
            raise EvaluationError(f"{what} below {least:g}%: {values}")


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
