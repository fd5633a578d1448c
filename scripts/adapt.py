"""`python -m scripts.adapt`: trains a new last layer for a user's own classes."""

import argparse
import logging
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TaskID, TimeRemainingColumn

from scripts import arguments, build_repository, cli, recipe_options
from scripts.adaptation import report
from scripts.adaptation.errors import AdaptationError
from scripts.adaptation.files import replacing, write_onnx
from scripts.adaptation.process import Adaptation, Settings, adapt
from scripts.evaluation import confusion, datasets
from scripts.evaluation.datasets import Folders
from scripts.evaluation.datasets.words import examples
from scripts.progress import SpeedColumn, bars
from scripts.repository import builder, catalog, labels, manifest, sources, summary, tuning
from scripts.repository.execution import Request
from scripts.repository.sources import ClassifierSource
from scripts.repository.tuning import Tuning

logger = logging.getLogger(__name__)

EXAMPLES = """\
  python -m scripts.adapt --model resnet50_v1 --data flowers --name flowers
  python -m scripts.adapt --model mobilenetv2 --weights /media/usb/zoo --data parts --name parts
  python -m scripts.adapt --onnx exported/ --data flowers --name flowers --held-out 30
  python -m scripts.adapt --onnx birds.onnx --recipe timm --data owls --name owls --no-build
"""
MAX_PERCENT = 90
MAX_SEED = 2**32 - 1


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = cli.parser(
        "scripts.adapt",
        "Adapt a classifier to your own classes: compute the features before its last layer for "
        "labelled images, train a new last layer on them, test it on images that are held out, "
        "and add the new classifier to the model repository.",
        examples=EXAMPLES,
    )
    base = parser.add_mutually_exclusive_group(required=True)
    base.add_argument(
        "--model",
        choices=catalog.CATALOG,
        metavar="NAME",
        help="a classifier of the ONNX Model Zoo",
    )
    base.add_argument(
        "--onnx",
        type=arguments.path,
        metavar="PATH",
        help="your own classifier: an ONNX file, or a folder with one and with its description",
    )
    parser.add_argument(
        "--weights",
        metavar="zoo|synthetic|DIR",
        help="with --model: download the zoo's file (default), generate random weights offline, or "
        "read the zoo's file from a folder",
    )
    parser.add_argument(
        "--data",
        type=arguments.path,
        required=True,
        metavar="DIR",
        help="images, in one folder for each class; the folders' names are the labels",
    )
    parser.add_argument(
        "--name", type=arguments.filled, required=True, help="name of the new classifier"
    )
    parser.add_argument(
        "--held-out",
        type=_percent,
        default=20,
        metavar="PERCENT",
        help="part of each class to test on, at least one image (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        help="chooses the held-out images; the same seed gives the same file (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--output",
        type=arguments.path,
        default=Path("build/adapted"),
        metavar="DIR",
        help="folder for NAME.onnx and NAME-confusion.png (default: %(default)s)",
    )
    parser.add_argument(
        "--model-repository",
        type=arguments.path,
        default=cli.DEFAULT_REPOSITORY,
        metavar="DIR",
        help="where the classifier is added; one of this name is replaced (default: %(default)s)",
    )
    parser.add_argument(
        "--no-build",
        action="store_true",
        help="only write the files; scripts.build_repository --onnx NAME.onnx builds it with "
        "other settings",
    )
    parser.add_argument(
        "--output-name",
        type=arguments.filled,
        metavar="NAME",
        help="with --onnx: the output that has the scores, of several",
    )
    parser.add_argument(
        "--layout",
        choices=recipe_options.LAYOUTS,
        help="with --onnx: order of the input's dimensions, if it is ambiguous",
    )
    recipe_options.add_preprocessing(
        parser.add_argument_group(
            "preprocessing of your own classifier",
            "What is not given is read from the files beside the ONNX file, or from itself. "
            "--resize and --crop are also for the zoo's classifiers.",
        )
    )
    # What `recipe_options` reads of the options that build_repository has beyond these.
    parser.set_defaults(
        models=None, hub=None, revision=None, labels=None, scores=None, check=[], decoding="fast"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    if "--list-recipes" in (sys.argv[1:] if arguments is None else arguments):
        return cli.run(build_repository.list_recipes)
    options = parser().parse_args(arguments)
    return cli.run(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    _check(options)
    images = _with_labels(datasets.open_folders(options.data), options.data)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    settings = Settings(options.held_out / 100, options.seed, tuning.cores())
    with bars(MofNCompleteColumn(), SpeedColumn(), TimeRemainingColumn()) as progress:
        source = _base(options, progress)
        adapted = adapt(source, images, settings, _Tasks(progress))
    file, picture = _files(options)
    with replacing(picture) as new:
        confusion.draw(adapted.trial.confusion, images.classes, new)
    write_onnx(adapted.model, file)
    _print(console, options.name, images, adapted)
    console.print(f"written: {file}, {picture}")
    if not options.no_build:
        _build(options.name, file, options.model_repository, console)
    return 0


def _files(options: argparse.Namespace) -> tuple[Path, Path]:
    """Name the files that are written: the classifier and the picture."""
    output, name = options.output, options.name
    return output / f"{name}.onnx", output / f"{name}-confusion.png"


def _with_labels(images: Folders, data: Path) -> Folders:
    """Make labels, which are one line each, of the folders' names."""
    names = labels.from_value(images.classes, str(data))
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise AdaptationError(
            f"{data}: several folders have the label {examples(repeated)} without line breaks and "
            "outer spaces; rename them"
        )
    return replace(images, classes=names)


def _check_output(options: argparse.Namespace) -> None:
    """Check that the files can be written, and that none is the classifier that is adapted."""
    for file in _files(options):
        place = next(path for path in (file, *file.parents) if path.exists())
        if file.is_dir() or not (place.is_dir() or place == file):
            raise AdaptationError(f"{place} is in the way of {file}; give another --output")
        if not os.access(place, os.W_OK):
            raise AdaptationError(f"{place} cannot be written to; give another --output")
    base, file = options.onnx, _files(options)[0]
    both_exist = base and base.exists() and file.exists()
    if both_exist and (file.samefile(base) or file.parent.samefile(base)):
        raise AdaptationError(
            f"{file} would replace the classifier that is adapted; give another --name or --output"
        )


def _check(options: argparse.Namespace) -> None:
    """Check the options before any work is done."""
    builder.check_name(options.name)
    _check_output(options)
    if not options.no_build:
        manifest.read(options.model_repository)
    if options.onnx:
        if options.weights:
            raise AdaptationError("--weights is for --model; leave it out")
        recipe_options.check(options)
        return
    allowed = {"--name", *recipe_options.SIZES}
    if others := [option for option in recipe_options.given(options) if option not in allowed]:
        raise AdaptationError(
            f"{', '.join(others)} is for your own classifier; give --onnx, or leave it out"
        )
    options.weights = options.weights or "zoo"
    sources.check_weights(options.weights)
    if options.weights == "synthetic":
        logger.warning("synthetic weights are random: the accuracy is not that of the zoo's file")


def _base(options: argparse.Namespace, progress: Progress) -> ClassifierSource:
    """Find the classifier that is adapted."""
    if options.model:
        task = progress.add_task("downloading", total=None, visible=False)
        return sources.from_weights(
            recipe_options.resized(catalog.CATALOG[options.model], options),
            options.weights,
            progress=lambda done, total: progress.update(
                task, completed=done, total=total, visible=done < total
            ),
        )
    source = sources.from_file(
        options.onnx,
        options.onnx.stem,
        *recipe_options.descriptions(options),
        recipe=options.recipe,
        output=options.output_name,
        layout=options.layout,
    )
    if missing := [field for field in ("mean", "std") if field not in source.origins]:
        logger.warning(
            "nothing says %s for the pixels of %s; assumed: %s; give --recipe (see "
            "--list-recipes) or options such as --mean",
            " and ".join(missing),
            options.onnx,
            summary.pixels(source.recipe),
        )
    return source


class _Tasks:
    """A progress bar for each kind of work."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, unit: str, done: int, total: int) -> None:
        if unit not in self._tasks:
            self._tasks[unit] = self._progress.add_task(unit, total=total)
        self._progress.update(self._tasks[unit], completed=done)


def _print(console: Console, name: str, images: Folders, adapted: Adaptation) -> None:
    for line in report.lines(adapted, images.classes):
        console.print(f"{name:13} {line}")
        name = ""
    console.print(report.table(adapted.trial, images.classes).to_rich())


def _build(name: str, file: Path, repository: Path, console: Console) -> None:
    """Add the classifier to the model repository, as `build_repository --onnx` does."""
    source = sources.from_file(file, name)
    request = Request(Tuning(cores=tuning.cores()))
    with builder.session(repository, {name}) as session:
        entry = session.find_current(source, request) or session.add(source, request)
    console.print(summary.line(name, entry))
    for line in summary.details(entry):
        console.print(f"{'':13} {line}")
    console.print(f"model repository: {repository}, for {request.tuning}")


def _percent(text: str) -> int:
    number = arguments.count(text)
    if number > MAX_PERCENT:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_PERCENT}")
    return number


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > MAX_SEED:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {MAX_SEED}")
    return int(text)


if __name__ == "__main__":
    status = main()
    if (
        status == cli.INTERRUPTED
    ):  # threads that train may still run, and Python would wait for them
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)
