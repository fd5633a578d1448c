"""Compares scores, knowing what rounding alone changes in them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto

from scripts.repository.errors import BuildError
from scripts.repository.graphs import walk
from scripts.repository.graphs.runner import Runner
from scripts.repository.graphs.signature import Signature

Array = npt.NDArray[Any]

# Differences that rounding explains, relative to the spread of the scores.
TOLERANCES = {"FP32": 1e-5, "FP16": 1e-2, "INT8": 5e-2}
# Where a deep FP32 graph amplifies rounding more than that, computing it without onnxruntime's
# optimisations shows by how much; batches may differ a few times as much.
NOISE_FACTOR = 8
LARGEST_NOISE = 1e-2
# Scores that hardly differ, as those of random weights, are compared relative to their size.
SMALLEST_SPREAD = 0.1

INT8_OPERATORS = ("QuantizeLinear", "DequantizeLinear", "QLinear", "Integer", "MatMulNBits")
SMALL_FLOATS = {TensorProto.FLOAT16, TensorProto.BFLOAT16}


@dataclass(frozen=True)
class Reference:
    """The scores of the original graph, [N, ...], with which others are compared."""

    model: ModelProto
    signature: Signature
    images: Array
    scores: Array

    def check(self, scores: Array) -> float:
        """Compare scores of the same images, or of the first of them.

        Returns:
            Their largest difference, relative to the spread.

        Raises:
            BuildError: they differ by more than rounding explains.
        """
        found = difference(self.scores[: len(scores)], scores)
        if found > TOLERANCES[precision(self.model)] and not self._is_noise(found):
            raise BuildError(f"its scores differ from the original by {found:.1e} of their spread")
        return found

    def _is_noise(self, found: float) -> bool:
        """Tell whether another order of the same computations changes the scores as much."""
        return found <= LARGEST_NOISE and found <= NOISE_FACTOR * self.noise()

    def noise(self) -> float:
        """Compute how much the scores change without onnxruntime's optimisations.

        Returns:
            The largest difference, or 0 if the graph needs the optimisations.
        """
        try:
            plain = Runner(self.model, self.signature, optimised=False)
            return difference(self.scores, plain.run_each(self.images))
        except BuildError:
            return 0.0


def difference(expected: Array, actual: Array) -> float:
    """Find the largest difference of scores, relative to the spread of `expected`.

    The spread is the standard deviation, but at least a tenth of the largest score.

    Raises:
        BuildError: the shapes differ.
    """
    if expected.shape != actual.shape:
        raise BuildError(f"its output is {list(actual.shape)} instead of {list(expected.shape)}")
    finite = np.isfinite(expected)
    if (finite != np.isfinite(actual)).any():
        return float("inf")
    before, after = (scores[finite].astype(np.float64) for scores in (expected, actual))
    if not before.size or (before == after).all():
        return 0.0
    spread = max(before.std(), SMALLEST_SPREAD * np.abs(before).max())
    return float(np.abs(before - after).max() / spread) if spread else float("inf")


def precision(model: ModelProto) -> str:
    """Recognise the precision in which a graph computes, one of `TOLERANCES`."""
    operators = {node.op_type for node in walk.nodes(model)}
    if any(name in operator for operator in operators for name in INT8_OPERATORS):
        return "INT8"
    types = {tensor.data_type for tensor in walk.tensors(model)}
    return "FP16" if types & SMALL_FLOATS else "FP32"
