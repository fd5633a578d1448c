"""`python -m scripts.build_repository`: makes the model repository that Triton serves."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from scripts import cli
from scripts.measuring.graphs import speedup
from scripts.repository import builder, calibration, catalog, sources, tuning
from scripts.repository.catalog import ZooModel
from scripts.repository.errors import BuildError
from scripts.repository.graphs.prepare import Prepared
from scripts.repository.graphs.quantize import Quantized, quantize
from scripts.repository.manifest import Entry, Quantization
from scripts.repository.sources import ClassifierSource
from scripts.repository.steps.preprocess.recipe import IMAGENET_MEAN, IMAGENET_STD
from scripts.repository.tuning import Tuning

EXAMPLES = """\
  python -m scripts.build_repository
  python -m scripts.build_repository --models resnet50_v1 mobilenetv2
  python -m scripts.build_repository --models resnet18_v1 --weights synthetic
  python -m scripts.build_repository --weights /media/usb/zoo
  python -m scripts.build_repository --onnx birds.onnx --name birds --labels birds.txt
  python -m scripts.build_repository --models resnet50_v1 --precision int8 --calibration photos
  python -m scripts.build_repository --device gpu
  python -m scripts.build_repository --optimize latency --cores 8
  python -m scripts.build_repository --queue 16
"""
TOGETHER = "--precision int8 and --calibration go together: a folder of images like yours"


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = cli.parser(
        "scripts.build_repository",
        "Build a Triton model repository: for each classifier an ensemble from image bytes to "
        "top-k. What the folder already holds stays.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="NAME",
        help=f"zoo classifiers, or all (the default): {', '.join(catalog.CATALOG)}",
    )
    parser.add_argument(
        "--weights",
        default="zoo",
        metavar="zoo|synthetic|DIR",
        help="download the zoo's files (the default), make random weights without a network, or "
        "take the zoo's files from a folder",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=cli.DEFAULT_REPOSITORY,
        metavar="DIR",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--prune", action="store_true", help="remove the classifiers that are not named here"
    )
    served_by = parser.add_argument_group("the machine that is to serve it")
    served_by.add_argument(
        "--device",
        choices=tuning.DEVICES,
        default="cpu",
        help="what runs the graphs (default: %(default)s)",
    )
    served_by.add_argument(
        "--optimize",
        choices=tuning.GOALS,
        default="throughput",
        help="on a CPU: an image for each core, or all cores on one image (default: %(default)s)",
    )
    served_by.add_argument(
        "--cores",
        type=cli.count,
        default=tuning.cores(),
        metavar="N",
        help="CPU cores (default: those of this machine)",
    )
    served_by.add_argument(
        "--queue",
        type=cli.count,
        metavar="N",
        help="requests that wait before others are refused; fewer where clients wait for a second "
        f"or two (default: {tuning.CPU_QUEUE}, on a GPU {tuning.GPU_QUEUE})",
    )
    int8 = parser.add_argument_group("for CPUs with VNNI")
    int8.add_argument(
        "--precision",
        choices=("fp32", "int8"),
        default="fp32",
        help="int8 quantises the graphs (default: %(default)s)",
    )
    int8.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help=f"{calibration.ENOUGH} images or more like those to classify, also in folders below",
    )
    own = parser.add_argument_group("your own classifier")
    own.add_argument("--onnx", type=Path, metavar="FILE", help="FP32 [N, 3, H, W] to [N, classes]")
    own.add_argument("--name", help="what clients call it")
    own.add_argument(
        "--labels", type=Path, metavar="FILE", help="one label a line (ImageNet's if 1,000 classes)"
    )
    own.add_argument("--resize", type=int, metavar="N", help="shorter side (crop * 256 / 224)")
    own.add_argument("--crop", type=int, metavar="N", help="centre crop (the graph's size, or 224)")
    for option, usual in (("--mean", IMAGENET_MEAN), ("--std", IMAGENET_STD)):
        own.add_argument(
            option,
            type=float,
            nargs=3,
            metavar=("R", "G", "B"),
            help=f"of pixels in 0..1 ({' '.join(map(str, usual))})",
        )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Build, and say what was built."""
    options = parser().parse_args(arguments)
    return cli.run(lambda: build(options))


def build(options: argparse.Namespace) -> int:
    """Add each classifier that the options name to the repository."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    chosen = _check(options)
    fitted = Tuning(options.device, options.optimize, options.cores, options.queue)
    with _progress(console) as progress:
        quantizer = _quantizer(options.calibration, progress) if options.calibration else None
        names = set()
        for source in _sources(options, chosen, progress):
            task = progress.add_task(f"{source.name}: preparing", total=None)
            entry = builder.add(options.output, source, tuning=fitted, quantize=quantizer)
            progress.remove_task(task)
            console.print(_summary(source.name, entry))
            names.add(source.name)
    if options.prune:
        for name in sorted(builder.keep_only(options.output, names)):
            console.print(f"{name} removed")
    console.print(f"model repository: {options.output}, for {fitted}")
    return 0


def _check(options: argparse.Namespace) -> list[ZooModel]:
    """Find what is wrong with the options before any work is done."""
    if bool(options.onnx) != bool(options.name):
        raise BuildError("--onnx and --name go together: a file and what clients call it")
    if options.name:
        builder.check_name(options.name)
    own = (options.labels, options.resize, options.crop, options.mean, options.std)
    if not options.onnx and any(value is not None for value in own):
        raise BuildError(
            "--labels, --resize, --crop, --mean and --std are for your own classifier; give --onnx"
        )
    if options.weights not in {"zoo", "synthetic"} and not Path(options.weights).is_dir():
        raise BuildError(f"--weights: no folder {options.weights}; give zoo, synthetic or a folder")
    if (options.precision == "int8") != bool(options.calibration):
        raise BuildError(TOGETHER)
    if options.calibration and not options.calibration.is_dir():
        raise BuildError(f"--calibration: no folder {options.calibration}; give one of images")
    default = [] if options.onnx else ["all"]
    return catalog.select(options.models or default)


def _sources(
    options: argparse.Namespace, chosen: list[ZooModel], progress: Progress
) -> Iterator[ClassifierSource]:
    for model in chosen:
        if options.weights == "synthetic":
            yield sources.from_seed(model)
        elif options.weights == "zoo":
            yield _download(model, progress)
        else:
            yield sources.from_zoo(model, folder=Path(options.weights))
    if options.onnx:
        yield sources.from_file(
            options.onnx,
            options.name,
            labels=sources.read_labels(options.labels) if options.labels else None,
            resize=options.resize,
            crop=options.crop,
            mean=tuple(options.mean or IMAGENET_MEAN),
            std=tuple(options.std or IMAGENET_STD),
        )


def _download(model: ZooModel, progress: Progress) -> ClassifierSource:
    megabytes = f"{model.size / 1e6:.0f} MB"
    task = progress.add_task(
        f"{model.name}: downloading {megabytes}", total=model.size, visible=False
    )

    def report(done: int, total: int) -> None:
        progress.update(task, completed=done, visible=done < total)

    return sources.from_zoo(model, progress=report)


def _quantizer(folder: Path, progress: Progress) -> builder.Quantize:
    """Read the calibration images once, for all classifiers."""
    images = calibration.read(folder, progress=_report(progress, "reading the images"))
    for complaint in images.unreadable:
        _warn(f"left out {complaint}")
    if not images.held_out:
        _warn(f"{len(images.calibrate)} images to calibrate on; take {calibration.ENOUGH} or more")

    def run(source: ClassifierSource, prepared: Prepared) -> Quantized:
        report = _report(progress, f"{source.name}: calibrating and comparing")
        quantized = quantize(prepared, images, source.recipe, progress=report)
        ratio = speedup(prepared.model, quantized.prepared.model, source.recipe.crop)
        progress.console.print(f"{source.name:13} {_gain(ratio, quantized.quantization)}")
        if ratio <= 1:
            _warn("int8 is not faster than fp32 on this CPU; it takes one with VNNI")
        return quantized

    return run


def _report(progress: Progress, description: str) -> calibration.Progress:
    task = progress.add_task(description, total=None)

    def report(done: int, total: int) -> None:
        progress.update(task, completed=done, total=total, visible=done < total)

    return report


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


def _gain(ratio: float, quantization: Quantization) -> str:
    which = "held out" if quantization.held_out else "that it was calibrated on"
    return (
        f"int8 is {ratio:.1f} times as fast as fp32 here, on one thread, and names the same class "
        f"first for {quantization.agreeing} of {quantization.compared} images {which}"
    )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _summary(name: str, entry: Entry) -> str:
    recipe = f"{entry.recipe['resize']}/{entry.recipe['crop']}"
    return f"{name:13} {entry.classes} classes, recipe {recipe}, from {entry.source}"


if __name__ == "__main__":
    sys.exit(main())
