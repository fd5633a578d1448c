"""The options of `build_repository` that describe a user's own classifier, or resize the zoo's."""

import argparse
import logging
from dataclasses import replace
from typing import Any

from scripts import arguments
from scripts.repository import labels, sources
from scripts.repository.catalog import ZooModel
from scripts.repository.description import Description
from scripts.repository.errors import BuildError
from scripts.repository.graphs.scores import KINDS
from scripts.repository.steps.preprocess.recipe import (
    COLOURS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    INTERPOLATIONS,
    RESIZE_MODES,
    ROUNDINGS,
    written,
)

logger = logging.getLogger(__name__)

LAYOUTS = ("nchw", "nhwc")
NORMALIZATIONS: dict[str, dict[str, Any]] = {
    "imagenet": {"pixel_range": (0.0, 1.0), "mean": IMAGENET_MEAN, "std": IMAGENET_STD},
    "none": sources.UNNORMALIZED,
}
# Recipes' fields by the option that determines each.
FIELDS = {
    "--resize": "resize",
    "--crop": "crop",
    "--resize-mode": "mode",
    "--rounding": "rounding",
    "--interpolation": "interpolation",
    "--no-antialias": "antialias",
    "--fill": "fill",
    "--colour": "colour",
    "--pixel-range": "pixel_range",
    "--mean": "mean",
    "--std": "std",
}
# What the zoo's classifiers take as well, whose graphs have no fixed size.
SIZES = ("--resize", "--crop")
# What --normalization determines, too.
NORMALIZING = ("--pixel-range", "--mean", "--std")


def add_classifier(group: argparse._ArgumentGroup) -> None:
    """Add what the classifier is and what its scores are."""
    group.add_argument(
        "--onnx",
        type=arguments.path,
        metavar="PATH",
        help="an ONNX file, or a folder with one and with config.json, preprocessor_config.json",
    )
    group.add_argument(
        "--hub",
        type=arguments.filled,
        metavar="OWNER/NAME",
        help="download such a folder from the Hugging Face hub",
    )
    group.add_argument(
        "--revision",
        type=arguments.filled,
        help="branch, tag or commit on the hub (default: main)",
    )
    group.add_argument(
        "--name",
        type=arguments.filled,
        help="model name for clients (default: that of file or folder)",
    )
    group.add_argument(
        "--labels",
        type=arguments.path,
        metavar="FILE",
        help="one label per line, JSON or CSV (default: those in the folder or the ONNX file; else "
        "ImageNet's for 1,000 classes)",
    )
    group.add_argument(
        "--scores",
        choices=KINDS,
        help="what the graph's output is (default: recognised); sigmoid: independent labels",
    )
    group.add_argument(
        "--output-name",
        type=arguments.filled,
        metavar="NAME",
        help="the output to use, of several",
    )
    group.add_argument(
        "--layout", choices=LAYOUTS, help="order of the input's dimensions, if it is ambiguous"
    )
    group.add_argument(
        "--check",
        type=arguments.path,
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="compare the predictions with those of the file as it is, for these images",
    )


def add_preprocessing(group: argparse._ArgumentGroup) -> None:
    """Add how an image becomes a tensor."""
    group.add_argument(
        "--recipe",
        type=arguments.filled,
        metavar="NAME|FILE",
        help="a named recipe (--list-recipes), a preprocessor_config.json, a config.json of timm, "
        "or what torchvision prints for weights.transforms()",
    )
    group.add_argument("--list-recipes", action="store_true", help="list the named recipes")
    sizes: dict[str, Any] = {"type": arguments.height_and_width, "metavar": "N|HxW"}
    group.add_argument(
        "--resize",
        **sizes,
        help="size before the crop (default: crop * 256 / 224, for the zoo's its own ratio)",
    )
    group.add_argument("--crop", **sizes, help="centre crop (default: the graph's size, or 224)")
    group.add_argument(
        "--resize-mode",
        choices=RESIZE_MODES,
        help="resize the shorter side (default), ignore the proportions, or pad",
    )
    group.add_argument(
        "--fill", type=arguments.grey_level, nargs=3, metavar=("R", "G", "B"), help="of the padding"
    )
    group.add_argument("--rounding", choices=ROUNDINGS, help="whose arithmetic (default: zoo)")
    group.add_argument(
        "--interpolation",
        choices=INTERPOLATIONS,
        help="default: bilinear; opencv: its INTER_LINEAR",
    )
    group.add_argument(
        "--no-antialias",
        dest="antialias",
        action="store_const",
        const=False,
        help="filter without antialiasing, as TensorFlow does",
    )
    group.add_argument("--colour", choices=COLOURS, help="channels of the graph (default: rgb)")
    group.add_argument(
        "--pixel-range",
        type=float,
        nargs=2,
        metavar=("BLACK", "WHITE"),
        help="scale of the pixels before mean and std (default: 0 1)",
    )
    for option, default in (("--mean", IMAGENET_MEAN), ("--std", IMAGENET_STD)):
        group.add_argument(
            option,
            type=float,
            nargs="+",
            metavar="X",
            help=f"of each channel (default: {' '.join(map(str, default))})",
        )
    group.add_argument(
        "--normalization",
        choices=("imagenet", "none"),
        help="none: the graph takes 0 to 255 and normalises by itself",
    )


def given(options: argparse.Namespace) -> list[str]:
    """List the options of a user's own classifier that are given, without --onnx and --hub."""
    others = ("--labels", "--scores", "--output-name", "--layout", "--check", "--recipe")
    names = (*FIELDS, "--normalization", *others, "--revision", "--name")
    return [option for option in names if _value(options, option) not in (None, [])]


def check(options: argparse.Namespace) -> None:
    """Check that the options do not contradict each other, and that the files they name exist.

    Raises:
        BuildError: an option would be ignored, or a file is missing.
    """
    if options.onnx and options.hub:
        raise BuildError("--onnx and --hub exclude each other")
    _check_zoo(options)
    if options.revision and not options.hub:
        raise BuildError("--revision selects a version on the hub; give --hub with it, not --onnx")
    others = [option for option in NORMALIZING if _value(options, option) is not None]
    if options.normalization and others:
        raise BuildError(
            f"--normalization and {', '.join(others)} both say how pixels are scaled; leave one out"
        )
    for image in options.check:
        if not image.is_file():
            raise BuildError(f"--check: there is no file {image}; give images")


def _check_zoo(options: argparse.Namespace) -> None:
    is_own = options.onnx or options.hub
    named = given(options)
    sizes = [option for option in named if option in SIZES]
    if is_own and options.models and sizes:
        raise BuildError(
            f"{', '.join(sizes)} would be for --models as well as for your own classifier; build "
            "them one after the other"
        )
    others = [option for option in named if not (options.models and option in SIZES)]
    if others and not is_own:
        zoo = ", or name the zoo's with --models" if others == sizes else ""
        raise BuildError(
            f"to use {', '.join(others)}, give your own classifier: --onnx or --hub{zoo}"
        )


def resized(model: ZooModel, options: argparse.Namespace) -> ZooModel:
    """Give a classifier of the zoo the sizes of the options, and log what they leave open.

    Raises:
        BuildError: they do not fit together.
    """
    before = model.recipe
    crop, resize = options.crop or before.crop, options.resize or before.resize
    if options.crop and not options.resize:
        sides = zip(crop, before.resize, before.crop, strict=True)
        height, width = (round(side * whole / part) for side, whole, part in sides)
        resize = height, width
        logger.warning(
            "%s: images are resized to %s for --crop %s, as the zoo does to %s for %s; give "
            "--resize for another size",
            model.name,
            *map(written, (resize, crop, before.resize, before.crop)),
        )
    try:
        return replace(model, recipe=replace(before, resize=resize, crop=crop))
    except ValueError as error:
        raise BuildError(f"{model.name}: {error}") from error


def descriptions(options: argparse.Namespace) -> list[Description]:
    """Read what the options say, one description for each option.

    Raises:
        BuildError: a value cannot be used.
    """
    said = [
        Description(option, {field: _hashable(_value(options, option))})
        for option, field in FIELDS.items()
        if _value(options, option) is not None
    ]
    if options.interpolation == "opencv":
        said.append(Description("--interpolation opencv", {"antialias": False}))
    if options.normalization:
        origin = f"--normalization {options.normalization}"
        said.append(Description(origin, NORMALIZATIONS[options.normalization]))
    said.append(Description("--decoding", {"decoding": options.decoding}))
    if options.labels:
        said.append(Description(options.labels.name, labels=labels.read(options.labels)))
    if options.scores:
        said.append(Description("--scores", scores=options.scores))
    return said


def _value(options: argparse.Namespace, option: str) -> Any:  # noqa: ANN401 - as argparse read it
    name = "antialias" if option == "--no-antialias" else option[2:].replace("-", "_")
    return getattr(options, name)


def _hashable(value: Any) -> Any:  # noqa: ANN401
    return tuple(value) if isinstance(value, list) else value
