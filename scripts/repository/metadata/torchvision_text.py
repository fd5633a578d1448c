"""Reads what torchvision and timm print for a transform: `print(weights.transforms())`."""

import ast
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scripts.repository.metadata.fields import refused, whole
from scripts.repository.metadata.processors import CLIP_MEAN, CLIP_STD
from scripts.repository.steps.preprocess.recipe import INTERPOLATIONS, Recipe

logger = logging.getLogger(__name__)

# Objects that hold others, and say nothing themselves.
CONTAINERS = ("Compose", "Sequential")
# Steps that change nothing here, those that make a tensor of 0..255, and those that scale to 0..1.
NEUTRAL = ("RGB", "ToPILImage", "ToPureTensor")
TENSORS = ("PILToTensor", "MaybePILToTensor", "ToImage", "ToImageTensor")
SCALING = ("ToTensor", "MaybeToTensor", "ConvertImageDtype", "ConvertDtype")
# Names of arguments that are given by position.
POSITIONAL = {
    "Resize": ("size", "interpolation"),
    "CenterCrop": ("size",),
    "Normalize": ("mean", "std"),
}
PILLOW_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
CONVERSION = re.compile(r"<function \w*convert\w*rgb\w* at 0x[0-9a-f]+>", re.IGNORECASE)
CHILD = re.compile(r"^\s*\(\d+\):", re.MULTILINE)  # of torch.nn.Sequential
NAME = re.compile(r"[A-Za-z_][\w.]*\(")

# Known values by what is left of them when a tensor is printed, with four digits.
PRINTED = {tuple(round(each, 4) for each in values): values for values in (CLIP_MEAN, CLIP_STD)}

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class _Pipeline:
    """The steps that have been read."""

    fields: dict[str, Any] = field(default_factory=dict)
    is_tensor: bool = False
    is_float: bool = False

    def with_fields(self, **fields: Any) -> "_Pipeline":  # noqa: ANN401
        return replace(self, fields={**self.fields, **fields})


def recipe(text: str, origin: str) -> dict[str, Any]:
    """Derive the recipe from printed transforms.

    Raises:
        BuildError: a line is unknown, or a recipe cannot say it.
    """
    pipeline = _Pipeline()
    try:
        for name, arguments in _steps(text):
            pipeline = _add(pipeline, name, arguments)
        return whole(_finished(pipeline))
    except KeyError as error:
        raise refused(origin, f"a step has no {error}") from error
    except (ArithmeticError, IndexError, RecursionError, TypeError, ValueError) as error:
        raise refused(origin, f"cannot use it: {error}") from error


def _steps(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and arguments of each printed object, in order."""
    rest = CHILD.sub("", CONVERSION.sub("", text))
    while rest := rest.strip(" \t\r\n,[]"):
        if not (match := NAME.match(rest)):
            raise ValueError(f"the line {rest.splitlines()[0].strip()!r} is unknown")
        name = match[0][:-1].rpartition(".")[2]
        end = _closing(rest, match.end())
        inside, rest = rest[match.end() : end], rest[end + 1 :]
        if name in CONTAINERS:
            yield from _steps(inside)
        else:
            yield name, _arguments(inside, POSITIONAL.get(name, ()))


def _closing(text: str, start: int) -> int:
    depth = 1
    for index in range(start, len(text)):
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(text[index], 0)
        if depth == 0:
            return index
    raise ValueError("a closing parenthesis is missing")


def _arguments(text: str, positional: tuple[str, ...]) -> dict[str, Any]:
    # A preset prints one argument a line, without commas.
    lines = [line.strip().rstrip(",") for line in text.strip().splitlines()]
    source = f"f({', '.join(line for line in lines if line)})".replace("nearest-exact", "nearest")
    try:
        call = ast.parse(source, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"cannot read {' '.join(text.split())!r}") from error
    if not isinstance(call, ast.Call) or len(call.args) > len(positional):
        raise ValueError(f"cannot read {' '.join(text.split())!r}")
    given = dict(zip(positional, map(_value, call.args), strict=False))
    return given | {keyword.arg: _value(keyword.value) for keyword in call.keywords if keyword.arg}


def _value(node: ast.expr) -> Any:  # noqa: ANN401
    """Evaluate a literal, tensor([...]), or a name, of which the last part counts."""
    if isinstance(node, ast.Call):
        return _value(node.args[0])
    if isinstance(node, ast.Attribute):
        return node.attr.lower()
    if isinstance(node, ast.Name):
        return node.id.lower()
    if isinstance(node, ast.List | ast.Tuple):
        return tuple(map(_value, node.elts))
    return ast.literal_eval(node)


def _add(pipeline: _Pipeline, name: str, arguments: Arguments) -> _Pipeline:
    if name in HANDLERS:
        return HANDLERS[name](pipeline, arguments)
    if name in TENSORS:
        return replace(pipeline, is_tensor=True)
    if name in SCALING:
        return replace(pipeline, is_tensor=True, is_float=True)
    if name in NEUTRAL:
        return pipeline
    raise ValueError(f"{name} is not supported")


def _add_preset(pipeline: _Pipeline, arguments: Arguments) -> _Pipeline:
    steps: tuple[tuple[str, Arguments], ...] = (
        ("Resize", {"size": arguments["resize_size"], **arguments}),
        ("CenterCrop", {"size": arguments["crop_size"]}),
        ("ToTensor", {}),
        ("Normalize", arguments),
    )
    for name, values in steps:
        pipeline = _add(pipeline, name, values)
    return pipeline


def _add_resize(pipeline: _Pipeline, arguments: Arguments) -> _Pipeline:
    if not pipeline.fields.keys().isdisjoint({"resize", "crop"}):
        raise ValueError("Resize follows another Resize or CenterCrop")
    if arguments.get("max_size") is not None:
        raise ValueError(f"max_size is {arguments['max_size']}")
    if pipeline.is_float:
        logger.warning(
            "Resize follows ToTensor; pixels are rounded after it here, which differs by half a "
            "grey level"
        )
    size = _sides(arguments["size"])
    mode = "shorter" if len(size) == 1 else "squash"
    if "longest" in arguments:  # timm's ResizeKeepRatio
        mode = "letterbox" if arguments["longest"] == 1 else "shorter"
    # Pillow always antialiases; only tensors have the choice.
    antialias = arguments.get("antialias", True) not in (False, None) or not pipeline.is_tensor
    interpolation = _interpolation(arguments.get("interpolation", "bilinear"))
    if interpolation == "bicubic" and not antialias:
        raise ValueError("torchvision's bicubic filter without antialiasing is not supported")
    return pipeline.with_fields(
        resize=(size[0], size[-1]),
        mode=mode,
        interpolation=interpolation,
        antialias=antialias,
    )


def _add_crop(pipeline: _Pipeline, arguments: Arguments) -> _Pipeline:
    if "resize" not in pipeline.fields or "crop" in pipeline.fields:
        raise ValueError("CenterCrop has no Resize just before it")
    size = _sides(arguments["size"])
    return pipeline.with_fields(crop=(size[0], size[-1]))


def _add_normalize(pipeline: _Pipeline, arguments: Arguments) -> _Pipeline:
    if "mean" in pipeline.fields:
        raise ValueError("there are two Normalize")
    return pipeline.with_fields(mean=_numbers(arguments["mean"]), std=_numbers(arguments["std"]))


def _add_grayscale(pipeline: _Pipeline, arguments: Arguments) -> _Pipeline:
    if arguments.get("num_output_channels", 1) != 1:
        raise ValueError("Grayscale gives more than one channel")
    return pipeline.with_fields(colour="grey")


def _add_data_type(pipeline: _Pipeline, arguments: Arguments) -> _Pipeline:
    is_float = pipeline.is_float or bool(arguments.get("scale"))
    return replace(pipeline, is_tensor=True, is_float=is_float)


HANDLERS: Mapping[str, Callable[[_Pipeline, Arguments], _Pipeline]] = {
    "ImageClassification": _add_preset,
    "Resize": _add_resize,
    "ResizeKeepRatio": _add_resize,
    "CenterCrop": _add_crop,
    "CenterCropOrPad": _add_crop,
    "Normalize": _add_normalize,
    "Grayscale": _add_grayscale,
    "ToDtype": _add_data_type,
}


def _finished(pipeline: _Pipeline) -> Recipe:
    fields = pipeline.fields
    if "resize" not in fields:
        raise ValueError("it has no Resize")
    if "crop" not in fields and fields["mode"] == "shorter":
        raise ValueError("it has no CenterCrop, so that images keep their proportions")
    defaults: dict[str, Any] = {
        "crop": fields["resize"],
        "rounding": "torchvision",
        "pixel_range": (0.0, 1.0) if pipeline.is_float else (0.0, 255.0),
        "mean": (0.0,),
        "std": (1.0,),
    }
    fields = defaults | fields
    if fields["mode"] == "letterbox":  # CenterCropOrPad does not print its colour
        red, green, blue = (round(255 * value) for value in fields["mean"])
        fields["fill"] = (red, green, blue)
    return Recipe(**fields)


def _sides(size: Any) -> tuple[int, ...]:  # noqa: ANN401
    sides = tuple(map(int, size)) if isinstance(size, tuple) else (int(size),)
    if len(sides) not in {1, 2}:
        raise ValueError(f"size is {size}")
    return sides


def _interpolation(value: Any) -> str:  # noqa: ANN401
    name = PILLOW_FILTERS[value] if isinstance(value, int) else str(value)
    name = name.removesuffix("_exact")
    if name not in INTERPOLATIONS:
        raise ValueError(f"interpolation is {name}")
    return name


def _numbers(value: Any) -> tuple[float, ...]:  # noqa: ANN401
    numbers = tuple(map(float, value if isinstance(value, tuple) else (value,)))
    return PRINTED.get(numbers, numbers)
