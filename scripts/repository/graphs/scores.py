"""The kinds of scores that a classifier's graph can give."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

# `logits` and `log-probabilities` get a softmax. `probabilities` are served as they are, and
# `sigmoid` are those of labels that are independent of each other.
KINDS = ("logits", "probabilities", "sigmoid", "log-probabilities")


@dataclass(frozen=True)
class Scores:
    """How the output of a classifier's graph becomes probabilities.

    Attributes:
        kind: one of `KINDS`.
        origin: what it was recognised from, or `--scores`.
        classes: number of classes that are served, 2 if `is_single`.
        is_single: whether the graph gives one score p an image, which becomes [1 - p, p].
        needs_sigmoid: whether a Sigmoid has to be added to the graph.
    """

    kind: str
    origin: str
    classes: int
    is_single: bool = False
    needs_sigmoid: bool = False

    @property
    def are_logits(self) -> bool:
        """Whether a softmax turns them into probabilities."""
        return self.kind in {"logits", "log-probabilities"}


def recognise(
    model: ModelProto,  # noqa: ARG001
    output: str,  # noqa: ARG001
    values: npt.NDArray[Any],
    *,
    told: str | None = None,
) -> Scores:
    """Recognise the kind of scores from the last nodes of a graph and from values.

    `values` [N, ...] are what the tensor `output` is for several different images, in any shape and
    float type that the graph gives. `told` is one of `KINDS` and overrides what is recognised.

    Raises:
        BuildError: there is one score an image that cannot become a probability, or `told`
            contradicts the values.
    """
    rows = values.reshape(len(values), -1).astype(np.float64)
    is_distribution = (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-3)
    kind = told or ("probabilities" if is_distribution else "logits")
    return Scores(kind, "values", rows.shape[1])
