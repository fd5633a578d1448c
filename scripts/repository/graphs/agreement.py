"""Compares what engines and precisions make of the same graph or classifier."""

from collections.abc import Iterable

import numpy as np
from onnx import ModelProto

from scripts.repository.errors import BuildError
from scripts.repository.graphs.compare import Reference, difference
from scripts.repository.graphs.engines import Run, load
from scripts.repository.graphs.runner import Array, loadable
from scripts.repository.graphs.signature import Signature
from scripts.repository.manifest import Comparison
from scripts.repository.steps.postprocess.ranking import softmax

DIGITS = 4  # of a difference in probability; more depend on the CPU


def check_openvino(
    model: ModelProto, files: dict[str, bytes], signature: Signature, images: Array
) -> None:
    """Check that OpenVINO computes the scores that onnxruntime does, in FP32.

    Args:
        model: the graph.
        files: what is written of it.
        signature: its tensors.
        images: what it takes, a batch of several images; each of them is also run alone.

    Raises:
        BuildError: OpenVINO is not installed, cannot load or run the graph, or computes other
            scores.
    """
    with loadable(dict(files)) as graph:
        onnxruntime, openvino = (
            load(engine, graph, output=signature.output) for engine in ("onnxruntime", "openvino")
        )
    scores = _each(onnxruntime, images)
    reference = Reference(model, signature, images, scores)
    for actual in (_each(openvino, images), openvino(images)):
        found = difference(scores, actual)
        if not reference.is_rounding(found):
            raise BuildError(
                f"OpenVINO computes other scores than onnxruntime, by {found:.1e} of their spread"
            )


def compare(
    fp32: Run, served: Run, pixels: Iterable[Array], *, are_logits: bool, images: str
) -> Comparison:
    """Compare what is served with the FP32 graph.

    Args:
        fp32: computes scores [1, classes] from UINT8 pixels [1, height, width, channels].
        served: computes the same in another precision.
        pixels: the images.
        are_logits: whether a softmax turns scores into probabilities.
        images: which images these are, for the record.
    """
    agreeing, differences = 0, []
    for each in pixels:
        rows = [_probabilities(run(each)[0], are_logits=are_logits) for run in (fp32, served)]
        agreeing += int(rows[0].argmax() == rows[1].argmax())
        differences.append(float(np.abs(rows[0] - rows[1]).max()))
    return Comparison(len(differences), agreeing, round(max(differences), DIGITS), images)


def _probabilities(scores: Array, *, are_logits: bool) -> Array:
    return softmax(scores) if are_logits else scores


def _each(run: Run, images: Array) -> Array:
    return np.concatenate([run(image[None]) for image in images])
