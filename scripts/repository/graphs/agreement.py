"""Compares what engines and precisions make of the same graph or classifier."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from onnx import ModelProto

from scripts.repository.errors import BuildError
from scripts.repository.graphs import values
from scripts.repository.graphs.compare import NOISE_FACTOR, Reference, difference, precision
from scripts.repository.graphs.engines import Run, load
from scripts.repository.graphs.runner import Array, loadable
from scripts.repository.graphs.scores import Scores, probabilities
from scripts.repository.graphs.signature import Signature
from scripts.repository.manifest import Comparison
from scripts.repository.tuning import ENGINES

# The largest differences between the engines that rounding explains, relative to the spread of the
# scores: at most 2e-4 was found in FP32, 2e-3 in FP16, and 0.03 in INT8 with few layers.
TOLERANCES = {"FP32": 1e-3, "FP16": 1e-2, "INT8": 5e-2}
# With many INT8 layers, each engine's own optimisations change the scores: onnxruntime's by up to
# 0.4 of the spread for random weights, and OpenVINO's by at most twice as much.
LARGEST_NOISE = 1.0
# Sigmoids of all but 0 or 1 hardly have a spread.
SMALLEST_PROBABILITY = 1e-6
FLOATS = {"FP16", "FP32", "FP64"}
DIGITS = 4  # of a difference in probability; more depend on the CPU


def check_openvino(
    model: ModelProto,
    files: dict[str, bytes],
    signature: Signature,
    images: Array,
    kind: Scores,
) -> None:
    """Check that OpenVINO computes what onnxruntime does, in FP32, image by image and as a batch.

    The embedded server runs images one by one, and Triton's own backend runs batches.

    Args:
        model: the graph.
        files: what is written of it.
        signature: its tensors.
        images: what it takes, a batch of several images.
        kind: how its scores become probabilities.

    Raises:
        BuildError: OpenVINO is not installed, cannot load or run the graph, or computes something
            else.
    """
    for output in _outputs(model, signature):
        with loadable(dict(files)) as graph:
            onnxruntime, openvino = (load(engine, graph, output=output) for engine in ENGINES)
            batched = load("openvino", graph, output=output, batches=True)
        scores = _each(onnxruntime, images)
        reference = Reference(model, replace(signature, output=output), images, scores)
        # Batches of two sizes follow each other, since a graph can keep something of the first.
        for actual in (openvino(images), _each(batched, images), batched(images)):
            found = difference(scores, actual)
            is_close = output == signature.output and _are_close(scores, actual, kind)
            if not is_close and not _is_rounding(found, reference):
                raise BuildError(
                    f"OpenVINO computes other values of {output} than onnxruntime, by {found:.1e} "
                    "of their spread"
                )


def _outputs(model: ModelProto, signature: Signature) -> list[str]:
    """Name the scores and the other outputs of numbers with one row an image."""
    outputs = map(values.read, model.graph.output)
    served = (each for each in outputs if each.dims and each.dims[0] is None)
    numbers = (each.name for each in served if each.data_type in FLOATS)
    return list(dict.fromkeys([signature.output, *numbers]))


def _is_rounding(found: float, reference: Reference) -> bool:
    kind = precision(reference.model)
    if found <= TOLERANCES[kind]:
        return True
    is_possible = kind == "INT8" and found <= LARGEST_NOISE
    return is_possible and found <= NOISE_FACTOR * reference.noise()


def _are_close(expected: Array, actual: Array, kind: Scores) -> bool:
    before, after = (probabilities(scores, kind) for scores in (expected, actual))
    return bool((np.abs(before - after) <= SMALLEST_PROBABILITY).all())


def compare(
    fp32: Run, served: Run, pixels: Iterable[Array], kind: Scores, images: str
) -> Comparison:
    """Compare what is served with the FP32 graph.

    Args:
        fp32: computes scores [1, classes] from UINT8 pixels [1, height, width, channels].
        served: computes the same in another precision.
        pixels: the images.
        kind: how scores become probabilities.
        images: which images these are, for the record.
    """
    agreeing, differences = 0, []
    for each in pixels:
        rows = [probabilities(run(each), kind)[0] for run in (fp32, served)]
        agreeing += int(rows[0].argmax() == rows[1].argmax())
        differences.append(float(np.abs(rows[0] - rows[1]).max()))
    return Comparison(len(differences), agreeing, round(max(differences), DIGITS), images)


def _each(run: Run, images: Array) -> Array:
    return np.concatenate([run(image[None]) for image in images])
