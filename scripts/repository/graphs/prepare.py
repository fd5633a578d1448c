"""Converts a classifier's ONNX graph to one that Triton can serve in batches."""

import logging
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto, version_converter

from scripts.repository.errors import BuildError
from scripts.repository.graphs.free_batch import free_batch
from scripts.repository.graphs.scores import Scores, recognise
from scripts.repository.graphs.signature import Signature, inputs, read_signature
from scripts.repository.steps.preprocess.recipe import Size
from scripts.repository.tuning import MAX_BATCH_SIZE

logger = logging.getLogger(__name__)

Array = npt.NDArray[np.float32]

# Supported by onnxruntime 1.19 (Triton 24.10) and later. IR 4 is the first version in which
# initializers do not have to be graph inputs.
IR_VERSIONS = (4, 10)
OPSETS = (7, 21)

TOLERANCE = 1e-4
DEFAULT_SIZE = 224
# onnxruntime raises errors as exceptions; it would also log those of attempts that may fail.
LOG_NOTHING = 4


# How a graph computes several images: together, one after the other in a loop inside the graph, or
# not at all.
BATCHES = ("variable", "loop", "single")


@dataclass(frozen=True)
class Prepared:
    """A servable graph.

    Attributes:
        model: the graph, with the file's own tensors and a variable batch size.
        signature: its tensors.
        scores: how its output becomes probabilities.
        batches: one of `BATCHES`.
        difference: the largest difference from the file's scores that was found, relative to
            their spread.
    """

    model: ModelProto
    signature: Signature
    scores: Scores
    batches: str = "variable"
    difference: float = 0.0

    @property
    def classes(self) -> int:
        """The number of classes that are served."""
        return self.scores.classes

    @property
    def max_batch_size(self) -> int:
        """The largest batch that is served."""
        return 1 if self.batches == "single" else MAX_BATCH_SIZE

    @property
    def opset(self) -> int:
        """The version of the default operator set."""
        return _opset(self.model)


def prepare(
    model: ModelProto,
    *,
    size: Size | None = None,
    output: str | None = None,
    layout: str | None = None,
    scores: str | None = None,
) -> Prepared:
    """Make the batch size variable, and height and width too if the graph supports it.

    Initializers are removed from the inputs, opset and IR are converted to versions that
    onnxruntime 1.19 and later support, and tensors keep their names. `size` is the height and width
    at which a graph without a fixed size is tested.

    Raises:
        BuildError: the graph is not an image classifier, or its scores change by more than 1e-4.
    """
    signature = read_signature(model, output=output, layout=layout)
    default = size or (DEFAULT_SIZE, DEFAULT_SIZE)
    height, width = signature.height or default[0], signature.width or default[1]
    images = _random_images(2 * (signature.batch or 1), height, width)
    signature, expected = _run_original(model, signature, images)

    prepared = _with_servable_versions(model)
    _drop_initializers_from_inputs(prepared)
    free_batch(prepared, signature.batch)
    signature = replace(signature, batch=None, height=height, width=width)
    free, free_signature = _with_free_size(prepared), replace(signature, height=None, width=None)
    if _takes_any_size(free, free_signature, images, expected):
        prepared, signature = free, free_signature
    else:
        _check_batches(prepared, signature, images, expected)
    return Prepared(
        model=prepared,
        signature=signature,
        scores=recognise(model, signature.output, expected, told=scores),
    )


def _run_original(
    model: ModelProto, signature: Signature, images: Array
) -> tuple[Signature, Array]:
    """Run the graph at its declared batch size, or one image at a time if only that works."""
    try:
        scores = Runner(model, signature).run(images)
        if len(scores) == len(images):
            return signature, scores
    except BuildError:
        if signature.batch:
            raise
    single = replace(signature, batch=1)
    return single, Runner(model, single).run(images)


def _opset(model: ModelProto) -> int:
    default = {"", "ai.onnx"}
    return max(int(opset.version) for opset in model.opset_import if opset.domain in default)


def with_opset(model: ModelProto, lowest: int, highest: int) -> ModelProto:
    """Copy a graph, converted to the nearest opset from `lowest` to `highest`.

    Raises:
        BuildError: the graph cannot be converted.
    """
    opset = min(max(_opset(model), lowest), highest)
    if opset == _opset(model):
        copy = ModelProto()
        copy.CopyFrom(model)
        return copy
    try:
        return version_converter.convert_version(model, opset)
    except RuntimeError as error:
        raise BuildError(
            f"opset {_opset(model)} cannot be converted to {opset}, which Triton supports; "
            f"export the model with opset {lowest} to {highest}"
        ) from error


def _with_servable_versions(model: ModelProto) -> ModelProto:
    prepared = with_opset(model, *OPSETS)
    oldest, newest = IR_VERSIONS
    prepared.ir_version = min(max(model.ir_version, oldest), newest)
    return prepared


def _drop_initializers_from_inputs(model: ModelProto) -> None:
    # Inputs can be overridden, so onnxruntime would not fold BatchNorm into them.
    images = inputs(model)
    del model.graph.input[:]
    model.graph.input.extend(images)


def _with_free_size(model: ModelProto) -> ModelProto:
    free = ModelProto()
    free.CopyFrom(model)
    for dim, symbol in zip(free.graph.input[0].type.tensor_type.shape.dim[2:], "HW", strict=True):
        dim.dim_param = symbol
    return free


def _takes_any_size(
    model: ModelProto, signature: Signature, images: Array, expected: Array
) -> bool:
    """Test the images at their own size, and larger wide and tall images."""
    _, _, height, width = images.shape
    try:
        runner = Runner(model, signature)
        _check_same(expected, runner.run(images))
        for taller, wider in ((32, 64), (64, 32)):
            larger = _random_images(len(images), height + taller, width + wider)
            if runner.run(larger).shape != expected.shape:
                return False
    except BuildError as error:
        logger.info("height and width remain fixed: %s", error)
        return False
    return True


def _check_batches(model: ModelProto, signature: Signature, images: Array, expected: Array) -> None:
    try:
        _check_same(expected, Runner(model, signature).run(images))
    except BuildError as error:
        raise BuildError(
            f"cannot make the batch size of the graph variable ({error}); export it with a "
            "dynamic batch axis and an example of at least two images"
        ) from error


def _random_images(count: int, height: int, width: int) -> Array:
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, 3, height, width), dtype=np.float32)


class Runner:
    """Runs a graph in onnxruntime on any number of images, in batches of its declared size.

    Raises:
        BuildError: onnxruntime cannot load or run the graph.
    """

    def __init__(self, model: ModelProto, signature: Signature) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = LOG_NOTHING
        self._signature = signature
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise BuildError(f"onnxruntime cannot load the graph: {first_line(error)}") from error

    def run(self, images: Array) -> Array:
        """Compute the scores, FP32 [N, classes], of images, FP32 [N, 3, height, width]."""
        batch = self._signature.batch or len(images)
        starts = range(0, len(images), batch)
        return np.concatenate([self._run_batch(images[at : at + batch]) for at in starts])

    def _run_batch(self, images: Array) -> Array:
        try:
            feeds = {self._signature.input: images}
            scores: Array = self._session.run([self._signature.output], feeds)[0]
        except Exception as error:
            raise BuildError(f"onnxruntime cannot run the graph: {first_line(error)}") from error
        return scores


def first_line(error: Exception) -> str:
    """Shorten an error message of onnxruntime, which can be a page long."""
    return str(error).strip().splitlines()[0]


def _check_same(expected: Array, actual: Array) -> None:
    if expected.shape != actual.shape:
        raise BuildError(f"its output is {list(actual.shape)} instead of {list(expected.shape)}")
    difference = np.abs(expected - actual).max() / max(1, np.abs(expected).max())
    if not difference <= TOLERANCE:
        raise BuildError(f"its scores differ from the original by {difference:.1e}")
