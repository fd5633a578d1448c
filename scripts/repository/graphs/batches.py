"""Makes the batch size of a graph variable, by its constants or by a loop."""

import logging
from dataclasses import dataclass, replace

from onnx import ModelProto, ValueInfoProto

from scripts.repository.errors import BuildError
from scripts.repository.graphs import loop
from scripts.repository.graphs.compare import Reference
from scripts.repository.graphs.free_batch import free_batch
from scripts.repository.graphs.runner import Runner, Shape
from scripts.repository.graphs.samples import images
from scripts.repository.graphs.signature import Signature, inputs

logger = logging.getLogger(__name__)

# Other sizes with which a graph of variable size is tested, in pixels above its own.
LARGER = ((32, 64), (64, 32))
EXPORT = (
    'export it with a dynamic batch: dynamic_shapes=({0: torch.export.Dim("batch")},) and an '
    'example of two images, or, with dynamo=False, dynamic_axes={"input": {0: "batch"}}'
)


@dataclass(frozen=True)
class Batched:
    """A graph of variable batch size.

    Attributes:
        model: the graph.
        signature: its tensors.
        difference: the largest difference from the original's scores that was found, relative to
            their spread.
        body: what is inside the loop, of a fixed batch size; None without a loop.
    """

    model: ModelProto
    signature: Signature
    difference: float
    body: ModelProto | None = None


def with_batches(graph: ModelProto, original: Reference) -> Batched:
    """Make the batch size of a graph variable, and height and width too if it supports that.

    `graph` is the original in the versions that servers support; its inputs are changed in place.
    What does not follow from the constants of the graph is put into a loop over the images.

    Raises:
        BuildError: the scores would differ from those of the original.
    """
    _keep_image_input(graph, original.signature)
    try:
        return _variable(graph, original)
    except BuildError as error:
        logger.info("the images of a batch are computed in turn: %s", error)
    try:
        return _looped(graph, original)
    except BuildError as error:
        raise BuildError(
            f"cannot make the batch size of the graph variable ({error}); {EXPORT}"
        ) from error


def looped(body: ModelProto, signature: Signature) -> ModelProto:
    """Put a graph of a fixed batch size into a loop over the images.

    Raises:
        BuildError: the graph cannot be loaded, or not be converted to an opset with loops.
    """
    image = body.graph.input[0]
    batch = loop.dims(image)[0]
    outputs: dict[str, Shape] = {}
    if len(body.graph.output) > 1:
        shapes = Runner(body, signature).shapes()
        outputs = {name: shape for name, shape in shapes.items() if _is_batch(shape, batch)}
    outputs[signature.output] = (batch, *signature.output_dims)
    return loop.over_images(body, image, outputs)


def _is_batch(shape: Shape, batch: int) -> bool:
    return bool(shape) and shape[0] == batch and all(isinstance(dim, int) for dim in shape)


def _keep_image_input(graph: ModelProto, signature: Signature) -> None:
    """Remove the other inputs, in place, and write the number of channels into the image's shape.

    Weights that are inputs can be overridden, so onnxruntime would not fold BatchNorm into them.
    """
    image = ValueInfoProto()
    image.CopyFrom(inputs(graph)[0])
    channels = image.type.tensor_type.shape.dim[1 if signature.layout == "NCHW" else 3]
    channels.dim_value = signature.channels
    del graph.graph.input[:]
    graph.graph.input.append(image)


def _variable(graph: ModelProto, original: Reference) -> Batched:
    model = ModelProto()
    model.CopyFrom(graph)
    free_batch(model, original.signature.batch)
    signature = _batched(original)
    _set_size(model, signature, "H", "W")
    free = replace(signature, height=None, width=None)
    try:
        runner = Runner(model, free)
        difference = _check(runner, original)
        _check_larger(runner, original)
        signature = free
    except BuildError as error:
        logger.info("height and width remain fixed: %s", error)
        _set_size(model, signature, signature.height, signature.width)
        runner = Runner(model, signature)
        difference = _check(runner, original)
    _declare_outputs(model, runner, signature)
    return Batched(model, signature, difference)


def _looped(graph: ModelProto, original: Reference) -> Batched:
    signature = _batched(original)
    batch = original.signature.batch or 1
    body = ModelProto()
    body.CopyFrom(graph)
    body.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    _set_size(body, signature, signature.height, signature.width)
    model = looped(body, signature)
    runner = Runner(model, signature)
    difference = _check(runner, original)
    _declare_outputs(model, runner, signature)
    if batch > 1:
        logger.warning(
            "the graph takes %d images at a time, so that a request of one costs as much as %d; "
            "export it with a dynamic batch, or with one of 1",
            *(batch, batch),
        )
    return Batched(model, signature, difference, body)


def _batched(original: Reference) -> Signature:
    return replace(original.signature, batch=None, output_dims=tuple(original.scores.shape[1:]))


def _check(runner: Runner, original: Reference) -> float:
    """Compare the scores of one image, and of all images together."""
    counts = (1, len(original.images))
    return max(original.check(runner.run(original.images[:count])) for count in counts)


def _check_larger(runner: Runner, original: Reference) -> None:
    signature = original.signature
    for taller, wider in LARGER:
        larger = replace(
            signature,
            height=(signature.height or 0) + taller,
            width=(signature.width or 0) + wider,
        )
        pictures = images(original.model, larger, 2)
        shape = runner.run(pictures).shape
        if shape != original.scores[:2].shape:
            raise BuildError(f"its output is {list(shape)} for larger images")


def _set_size(
    model: ModelProto, signature: Signature, height: int | str | None, width: int | str | None
) -> None:
    at = 2 if signature.layout == "NCHW" else 1
    dims = model.graph.input[0].type.tensor_type.shape.dim[at : at + 2]
    for dim, size in zip(dims, (height, width), strict=True):
        if isinstance(size, int):
            dim.dim_value = size
        else:
            dim.dim_param = size or ""


def _declare_outputs(model: ModelProto, runner: Runner, signature: Signature) -> None:
    """Write the shapes of the outputs as onnxruntime infers them, which Triton compares."""
    shapes = runner.shapes() | {signature.output: ("N", *signature.output_dims)}
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
        for dim in shapes[output.name]:
            added = output.type.tensor_type.shape.dim.add()
            if isinstance(dim, int):
                added.dim_value = dim
            elif dim:
                added.dim_param = dim
