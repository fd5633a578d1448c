"""`python -m scripts.build_repository`: builds the model repository that Triton serves."""

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import Progress, TaskProgressColumn, TimeRemainingColumn
from rich.table import Table

from scripts import arguments, cli, engine_options, recipe_options
from scripts.progress import bars
from scripts.repository import builder, calibration, catalog, sources, summary, tuning
from scripts.repository.builder import Session
from scripts.repository.calibration import Images
from scripts.repository.catalog import ZooModel
from scripts.repository.check import Check
from scripts.repository.errors import BuildError
from scripts.repository.execution import Request, Watch
from scripts.repository.manifest import Entry
from scripts.repository.metadata import hub, recipes
from scripts.repository.metadata.folder import SUBFOLDER
from scripts.repository.sources import ClassifierSource
from scripts.repository.steps.preprocess.recipe import CROPS, DECODINGS

EXAMPLES = """\
  python -m scripts.build_repository
  python -m scripts.build_repository --models resnet50_v1 mobilenetv2
  python -m scripts.build_repository --models resnet18_v1 --weights synthetic
  python -m scripts.build_repository --weights /media/usb/zoo
  python -m scripts.build_repository --onnx birds.onnx --labels birds.txt --recipe timm
  python -m scripts.build_repository --onnx exported/ --name birds --check photos/*.jpg
  python -m scripts.build_repository --hub onnx-community/resnet-50-ONNX --name resnet
  python -m scripts.build_repository --engine auto
  python -m scripts.build_repository --models resnet50_v1 --device gpu --precision fp16
  python -m scripts.build_repository --models resnet50_v1 --precision bf16
  python -m scripts.build_repository --models resnet50_v1 --precision int8 --calibration photos
  python -m scripts.build_repository --device gpu --preprocess gpu
  python -m scripts.build_repository --optimize latency --cores 8
  python -m scripts.build_repository --queue 16
  python -m scripts.build_repository --models resnet50_v1 --crops 10
  python -m scripts.build_repository --models resnet50_v1 --resize 352 --crop 320
  python -m scripts.build_repository --remove birds
"""


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = cli.parser(
        "scripts.build_repository",
        "Build a Triton model repository: for each classifier an ensemble from image bytes to "
        "top-k. Classifiers that are up to date are not built again, and others in the folder are "
        "left unchanged.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="NAME",
        help=f"classifiers of the ONNX Model Zoo, or all (default): {', '.join(catalog.CATALOG)}",
    )
    parser.add_argument(
        "--weights",
        default="zoo",
        metavar="zoo|synthetic|DIR",
        help="download the zoo's files (default), generate random weights offline, or read the "
        "zoo's files from a folder",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=cli.DEFAULT_REPOSITORY,
        metavar="DIR",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--force", action="store_true", help="also build classifiers that are up to date"
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="remove the zoo's classifiers that are not named; your own are kept",
    )
    parser.add_argument(
        "--remove",
        nargs="+",
        default=[],
        metavar="NAME",
        help="remove these classifiers; builds only what --models or --onnx names",
    )
    parser.add_argument(
        "--crops",
        type=int,
        choices=CROPS,
        default=1,
        help="10: also build NAME_10crop, which takes the mean of ten crops of an image (default: "
        "%(default)s)",
    )
    _add_target(parser.add_argument_group("target machine"))
    engine_options.add(parser.add_argument_group("engine and precision"))
    recipe_options.add_classifier(parser.add_argument_group("your own classifier"))
    recipe_options.add_preprocessing(
        parser.add_argument_group(
            "preprocessing of your own classifier",
            "What is not given is read from the files beside the ONNX file, or from itself. "
            "--resize and --crop are also for the zoo's classifiers that --models names.",
        )
    )
    return parser


def _add_target(target: argparse._ArgumentGroup) -> None:
    target.add_argument(
        "--device",
        choices=tuning.DEVICES,
        default="cpu",
        help="device that runs the graphs (default: %(default)s)",
    )
    target.add_argument(
        "--preprocess",
        choices=tuning.DEVICES,
        default="cpu",
        help="device that decodes and resizes images; gpu: with --device gpu, usual JPEGs with "
        "nvJPEG, all other images on the CPU (default: %(default)s)",
    )
    target.add_argument(
        "--optimize",
        choices=tuning.GOALS,
        default="throughput",
        help="on a CPU: one image per core, or all cores on one image (default: %(default)s)",
    )
    target.add_argument(
        "--cores",
        type=arguments.count,
        metavar="N",
        help="CPU cores (default: those of this machine)",
    )
    target.add_argument(
        "--decoding",
        choices=DECODINGS,
        default="fast",
        help="exact: the reference's pixels, bit by bit; slower for large images (default: "
        "%(default)s)",
    )
    target.add_argument(
        "--queue",
        type=arguments.count,
        metavar="N",
        help="waiting requests beyond which Triton rejects further ones; choose fewer if clients "
        f"time out within seconds (default: {tuning.CPU_QUEUE}, on a GPU {tuning.GPU_QUEUE})",
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    return cli.run(list_recipes if options.list_recipes else lambda: build(options))


def list_recipes() -> int:
    """Print the named recipes, and where each comes from."""
    for name, recipe in recipes.NAMED.items():
        print(f"{name}\n    {recipe.text}\n    from {recipe.origin}")
    return 0


def build(options: argparse.Namespace) -> int:
    """Remove and build the classifiers that the options name."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    chosen = _check(options)
    request = replace(engine_options.request(options), crops=options.crops)
    names = {model.name for model in chosen} | {options.name} - {None}
    with (
        builder.session(options.output, names) as session,
        bars(TaskProgressColumn(), TimeRemainingColumn(), console=console) as progress,
    ):
        session.remove(options.remove)
        _print_removed(console, options.remove)
        if options.calibration:
            request = replace(request, images=_read_images(options, progress))
        for source in _sources(options, chosen, progress):
            _build_one(session, source, request, options=options, progress=progress)
        if options.prune:
            _print_removed(console, sorted(session.prune(names)))
    console.print(f"model repository: {options.output}, for {request.tuning}")
    return 0


def _check(options: argparse.Namespace) -> list[ZooModel]:
    """Check the options before any work is done, and select the zoo's classifiers."""
    recipe_options.check(options)
    engine_options.check(options)
    is_own = bool(options.onnx or options.hub)
    if is_own:
        options.name = options.name or _default_name(options)
        if not options.name:
            raise BuildError(f"the name {options.onnx} has no letter for a model name; give --name")
        builder.check_name(options.name)
    sources.check_weights(options.weights)
    if options.prune and options.remove and not (options.models or is_own):
        raise BuildError("--prune with --remove requires --models, --onnx or --hub")
    default = [] if is_own or options.remove else ["all"]
    chosen = catalog.select(options.models or default)
    if options.weights != "zoo" and not chosen:
        raise BuildError("--weights is for the zoo's classifiers; name them with --models")
    return [recipe_options.resized(model, options) for model in chosen]


def _build_one(
    session: Session,
    source: ClassifierSource,
    request: Request,
    *,
    options: argparse.Namespace,
    progress: Progress,
) -> None:
    """Build a classifier unless it is up to date, and print a line that describes it."""
    task = progress.add_task(f"{source.name}: preparing", total=None)
    entry = session.find_current(source, request)
    state = ", up to date"
    if entry is None or options.force:
        entry = session.add(source, request, _watch(source, progress))
        state = ""
    progress.remove_task(task)
    progress.console.print(f"{summary.line(source.name, entry)}{state}")
    if source.file:
        _describe(source, entry, progress.console)
    if options.check and source.file:
        _print_check(Check(source, entry, session.repository), options.check, progress)


def _sources(
    options: argparse.Namespace, chosen: list[ZooModel], progress: Progress
) -> Iterator[ClassifierSource]:
    is_own = bool(options.onnx or options.hub)
    said = recipe_options.descriptions(options) if is_own else []  # errors come before downloads
    for model in chosen:
        report = _downloading(model, progress)
        source = sources.from_weights(model, options.weights, progress=report)
        yield replace(source, recipe=replace(source.recipe, decoding=options.decoding))
    if is_own:
        yield sources.from_file(
            options.onnx or _download_folder(options, progress),
            options.name,
            *said,
            recipe=options.recipe,
            output=options.output_name,
            layout=options.layout,
        )


def _download_folder(options: argparse.Namespace, progress: Progress) -> Path:
    report = _report(progress, f"{options.name}: downloading")
    return hub.download(options.hub, revision=options.revision, progress=report)


def _default_name(options: argparse.Namespace) -> str:
    """Name a classifier as its file, or as its folder or repository if that is called model.onnx.

    On the hub, onnx/model_fp16.onnx is the name of one in every repository: that is NAME_fp16.
    """
    # Links are kept: what they point to can have a name that nobody chose.
    path = Path(options.hub or os.path.abspath(options.onnx))  # noqa: PTH100
    name = path.name.removesuffix(".onnx")
    is_export = path.parent.name == SUBFOLDER
    folder = path.parent.parent if is_export else path.parent
    if name in {"model", SUBFOLDER}:
        name = folder.name
    elif is_export and name.startswith("model_"):
        name = folder.name + name.removeprefix("model")
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")


def _downloading(model: ZooModel, progress: Progress) -> calibration.Progress:
    megabytes = f"{model.size / 1e6:.0f} MB"
    task = progress.add_task(
        f"{model.name}: downloading {megabytes}", total=model.size, visible=False
    )

    def report(done: int, total: int) -> None:
        progress.update(task, completed=done, visible=done < total)

    return report


def _read_images(options: argparse.Namespace, progress: Progress) -> Images:
    images = calibration.read(options.calibration, progress=_report(progress, "reading images"))
    for reason in images.unreadable:
        _warn(f"skipped {reason}")
    if not images.held_out:
        kind = "calibration images" if options.precision == "int8" else "images to compare"
        recommended = f"at least {calibration.RECOMMENDED} are recommended"
        _warn(f"only {len(images.all)} {kind}; {recommended}")
    return images


def _watch(source: ClassifierSource, progress: Progress) -> Watch:
    return Watch(
        progress=lambda step: _report(progress, f"{source.name}: {step}"),
        report=lambda line: progress.console.print(f"{source.name:13} {line}"),
    )


def _report(progress: Progress, description: str) -> calibration.Progress:
    task = progress.add_task(description, total=None)

    def report(done: int, total: int) -> None:
        progress.update(task, completed=done, total=total, visible=done < total)

    return report


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


def _print_removed(console: Console, names: Iterable[str]) -> None:
    for name in names:
        console.print(f"{name:13} removed")


def _describe(source: ClassifierSource, entry: Entry, console: Console) -> None:
    """Print what was said and what was assumed about a user's own classifier."""
    for line in summary.details(entry):
        console.print(f"{'':13} {line}")
    if missing := summary.assumed(entry):
        _warn(
            f"nothing says {' and '.join(missing)} for the pixels of {source.name}; assumed: "
            f"{summary.pixels(source.recipe)}; give --recipe (see --list-recipes) or options such "
            "as --mean, and try --check"
        )


def _print_check(check: Check, images: list[Path], progress: Progress) -> None:
    """Print the predictions of each image by the parts that were built, and by the file itself."""
    for image in images:
        comparison = check.compare(image)
        table = Table(box=box.SIMPLE_HEAD)
        for answer in comparison.answers:
            table.add_column(answer.way, no_wrap=True)
        for rank in range(len(comparison.answers[0].classes)):
            table.add_row(*(answer.row(rank) for answer in comparison.answers))
        progress.console.print(
            f"{image}: probabilities differ by up to {comparison.difference:.4f}"
        )
        progress.console.print(table)


if __name__ == "__main__":
    sys.exit(main())
