"""Runs the graph of a file as it is, to compare others with it."""

import logging
from dataclasses import replace

import numpy as np
from onnx import ModelProto

from scripts.repository.errors import BuildError
from scripts.repository.graphs import inference_mode
from scripts.repository.graphs.compare import Reference
from scripts.repository.graphs.opset import conversions, opset
from scripts.repository.graphs.runner import Array, Runner
from scripts.repository.graphs.samples import DEFAULT_SIZE, images
from scripts.repository.graphs.signature import Signature
from scripts.repository.steps.preprocess.recipe import Size, written

logger = logging.getLogger(__name__)

IMAGES = 3
# Sizes of well-known classifiers come first, in pixels.
USUAL_SIZES = (224, 256, 288, 299, 320, 336, 384, 448, 512)
SIZES = (*USUAL_SIZES, *(side for side in range(32, 512, 32) if side not in USUAL_SIZES))


def run_original(model: ModelProto, signature: Signature, size: Size | None) -> Reference:
    """Compute the scores of several images, each alone.

    `size` is the height and width for a graph without a fixed size. The signature of the result has
    the height and width that were run, and a batch of 1 if the graph takes no others.

    Raises:
        BuildError: the graph cannot be run, asks for another size, or its scores are random or
            depend on the other images of a batch.
    """
    height, width = size or (DEFAULT_SIZE, DEFAULT_SIZE)
    sized = replace(signature, height=signature.height or height, width=signature.width or width)
    model, runner = _loaded(model, sized)
    pictures = images(model, sized, IMAGES)
    try:
        scores = runner.run_each(pictures)
    except BuildError as error:
        if other := _other_size(model, runner, signature, sized):
            tested = written((sized.height or 0, sized.width or 0))
            raise BuildError(
                f"the graph cannot be run at {tested} pixels, but at {other}: say --crop {other}"
            ) from error
        raise
    reference = Reference(model, sized, pictures, scores)
    _check_finite(scores)
    if (scores == scores[0]).all():
        logger.warning(
            "the graph gives the same scores for different images; check that its weights are the "
            "trained ones"
        )
    _check_repeatable(reference, runner)
    return _with_batch(reference, runner)


def _loaded(model: ModelProto, signature: Signature) -> tuple[ModelProto, Runner]:
    """Load a graph, converted to an older opset if onnxruntime does not know its own."""
    try:
        return model, Runner(model, signature)
    except BuildError as error:
        for older in conversions(model):
            try:
                return older, Runner(older, signature)
            except BuildError as reason:
                logger.info("opset %d: %s", opset(older), reason)
        raise error from None


def _other_size(
    model: ModelProto, runner: Runner, signature: Signature, sized: Signature
) -> int | None:
    """Find a square size at which a graph of variable size can be run."""
    if signature.height or signature.width:
        return None
    for side in SIZES:
        try:
            runner.run(images(model, replace(sized, height=side, width=side), 1))
        except BuildError:
            continue
        return side
    return None


def _check_finite(scores: Array) -> None:
    if not np.isfinite(scores.astype(np.float64)).all(axis=tuple(range(1, scores.ndim))).any():
        raise BuildError("the graph gives no finite scores for images; export it again")


def _check_repeatable(reference: Reference, runner: Runner) -> None:
    try:
        reference.check(runner.run(reference.images[:1]))
    except BuildError as error:
        # onnxruntime keeps the running mean and variance of training from call to call.
        is_trained = inference_mode.has_training_normalization(reference.model)
        refusal = inference_mode.mixing(reference.model) if is_trained else inference_mode.random()
        raise refusal from error


def _with_batch(reference: Reference, runner: Runner) -> Reference:
    """Run all images together, and note if the graph takes only one at a time."""
    batch = reference.signature.batch
    together = None if batch == 1 else _run_together(reference, runner)
    if together is None:
        # One image cannot show that its scores would depend on others.
        if inference_mode.has_training_normalization(reference.model):
            raise inference_mode.mixing(reference.model)
        return replace(reference, signature=replace(reference.signature, batch=1))
    try:
        reference.check(together)
    except BuildError as error:
        raise inference_mode.mixing(reference.model) from error
    return reference


def _run_together(reference: Reference, runner: Runner) -> Array | None:
    try:
        return runner.run(reference.images)
    except BuildError:
        if reference.signature.batch:
            raise
        return None  # the batch size is variable by name only
