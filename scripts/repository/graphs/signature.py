"""Finds the image and the scores among the tensors that a classifier's graph takes and gives."""

from dataclasses import dataclass

from onnx import ModelProto

from scripts.repository.errors import BuildError
from scripts.repository.graphs import values
from scripts.repository.graphs.values import Value, inputs
from scripts.repository.graphs.zip_map import without_zip_maps

__all__ = ["LAYOUTS", "Signature", "inputs", "read_signature", "without_zip_maps"]

LAYOUTS = ("NCHW", "NHWC")
CHANNELS = (1, 3)
IMAGE_RANK = 4
IMAGE_TYPES = ("FP32", "FP16", "FP64", "UINT8")
# INT8 and UINT8 are scores that the graph itself has quantised.
SCORES_TYPES = ("FP32", "FP16", "FP64", "UINT8", "INT8")
# What exporters call the scores of a graph that has other outputs, too.
SCORES_NAMES = frozenset(
    [
        *("logits", "logit", "class_logits", "scores", "score", "class_scores", "cls_score"),
        *("probabilities", "probability", "probs", "prob", "softmax", "sigmoid"),
        *("predictions", "prediction", "pred", "output", "output_0"),
    ]
)


@dataclass(frozen=True)
class Signature:
    """The image input and the scores output of a classifier.

    Attributes:
        input: name of the image tensor.
        output: name of the scores tensor.
        batch: number of images that the graph takes at once; None if it is symbolic.
        height: of the image, in pixels; None if it is symbolic.
        width: of the image, in pixels; None if it is symbolic.
        channels: 3, or 1 for grey images.
        layout: order of the input's dimensions, one of `LAYOUTS`.
        input_type: data type of the input, one of `IMAGE_TYPES`.
        output_type: data type of the output, one of `SCORES_TYPES`.
        output_dims: dimensions of the output after the batch, -1 where unknown: (1000,) for
            [N, 1000], (5, 1, 1) for [N, 5, 1, 1], () for [N]. (-1,) if the file has no shape.
    """

    input: str
    output: str
    batch: int | None
    height: int | None
    width: int | None
    channels: int = 3
    layout: str = "NCHW"
    input_type: str = "FP32"
    output_type: str = "FP32"
    output_dims: tuple[int, ...] = (-1,)


def read_signature(
    model: ModelProto, *, output: str | None = None, layout: str | None = None
) -> Signature:
    """Find a classifier's image input and scores output.

    `output` names the output of a graph with several, and `layout` is one of `LAYOUTS`; None
    recognises them. Channels are 3 if the file does not say.

    Raises:
        BuildError: the graph does not have exactly one image input, or one output that can be
            scores.
    """
    image, (batch, *dims) = _image(model)
    layout = layout.upper() if layout else _layout(image, dims)
    channels, height, width = dims if layout == "NCHW" else (dims[2], dims[0], dims[1])
    channels = channels or _channels_of_first_layer(model, image.name)
    if channels not in CHANNELS:
        raise BuildError(
            f"input {image.text} has {channels} channels in layout {layout}; an image has 3 or 1"
        )
    outputs = [values.read(value) for value in without_zip_maps(model).graph.output]
    scores = _scores(outputs, output)
    if scores.dims is not None and len(scores.dims) == 1 and scores.dims[0] not in {None, batch}:
        raise BuildError(
            f"output {scores.text} has no batch dimension; export the graph with an output of "
            "[N, classes]"
        )
    return Signature(
        input=image.name,
        output=scores.name,
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        layout=layout,
        input_type=str(image.data_type),
        output_type=str(scores.data_type),
        output_dims=(-1,) if scores.dims is None else tuple(dim or -1 for dim in scores.dims[1:]),
    )


def _image(model: ModelProto) -> tuple[Value, tuple[int | None, ...]]:
    """Find the image input, and its four dimensions."""
    found = [values.read(value) for value in inputs(model)]
    images = [value for value in found if _is_image(value)] if len(found) > 1 else found
    if len(images) != 1:
        listed = ", ".join(value.text for value in found) or "none"
        raise BuildError(
            f"the graph has the inputs {listed}; export a graph that takes one image tensor"
        )
    image = images[0]
    if others := [value for value in found if value is not image]:
        listed = ", ".join(value.text for value in others)
        raise BuildError(
            f"the graph needs {listed} besides the image; export it for inference, or give the "
            "other inputs constant values (initializers of the same names)"
        )
    if image.data_type not in IMAGE_TYPES:
        raise BuildError(
            f"input {image.text} cannot be an image; export the graph with an input of "
            "FLOAT, FLOAT16, DOUBLE or UINT8"
        )
    if image.dims is None or len(image.dims) != IMAGE_RANK:
        raise BuildError(
            f"input {image.text} is not a batch of images; export the graph with an input of "
            "[N, 3, height, width] or [N, height, width, 3]"
        )
    return image, image.dims


def _is_image(value: Value) -> bool:
    return value.data_type in IMAGE_TYPES and len(value.dims or ()) == IMAGE_RANK


def _layout(image: Value, dims: list[int | None]) -> str:
    """Recognise the layout from where 3 or 1 channels are; symbolic channels come first."""
    first, last = dims[0] in CHANNELS, dims[2] in CHANNELS
    if first and last:
        raise BuildError(
            f"input {image.text} can have its channels first or last; say which with "
            "--layout nchw or --layout nhwc"
        )
    if first or last:
        return "NHWC" if last else "NCHW"
    if dims[0] is None or dims[2] is None:
        return "NHWC" if dims[0] else "NCHW"
    raise BuildError(
        f"input {image.text} has neither 3 nor 1 channels; export the graph with an input of "
        "[N, 3, height, width] or [N, height, width, 3]"
    )


def _channels_of_first_layer(model: ModelProto, image: str) -> int:
    """Count the channels that a convolution of the image needs; 3 if there is none."""
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[0] == image and node.input[1] in weights:
            groups = next((int(each.i) for each in node.attribute if each.name == "group"), 1)
            return int(weights[node.input[1]][1]) * groups
    return 3


def _scores(outputs: list[Value], name: str | None) -> Value:
    listed = ", ".join(value.text for value in outputs)
    if name is not None and name not in {value.name for value in outputs}:
        raise BuildError(f"the graph has no output {name}; it has {listed}")
    if name is not None or len(outputs) == 1:
        scores = next(value for value in outputs if name in {None, value.name})
        if not _can_be_scores(scores):
            raise BuildError(
                f"output {scores.text} cannot be class scores; export the graph with an output of "
                "FLOAT [N, classes]"
            )
        return scores
    if not outputs:
        raise BuildError("the graph has no output; export it again")
    candidates = [value for value in outputs if _can_be_scores(value)]
    named = [value for value in candidates if _plain(value.name) in SCORES_NAMES]
    for choice in (named, candidates):
        if len(choice) == 1:
            return choice[0]
    raise BuildError(
        f"the graph has {len(outputs)} outputs ({listed}); name the one with the class scores: "
        "--output-name NAME"
    )


def _can_be_scores(value: Value) -> bool:
    """Tell whether an output has a number for each class, and no more dimensions larger than 1."""
    if value.data_type not in SCORES_TYPES:
        return False
    if value.dims is None:
        return True
    return bool(value.dims) and sum(dim != 1 and dim is not None for dim in value.dims[1:]) <= 1


def _plain(name: str) -> str:
    """Drop a path and TensorFlow's number: `model/logits:0` is `logits`."""
    return name.rsplit("/", 1)[-1].partition(":")[0].lower()
