"""The kinds of scores that a classifier's graph can give."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from scripts.repository.errors import BuildError
from scripts.repository.graphs.last_nodes import Quantization, last_operator, quantization

logger = logging.getLogger(__name__)

Rows = npt.NDArray[np.float64]

# `logits` and `log-probabilities` get a softmax, which restores the probabilities of the latter.
# `probabilities` are served as they are, and so are `sigmoid`, those of labels that are independent
# of each other.
KINDS = ("logits", "probabilities", "sigmoid", "log-probabilities")

ACTIVATIONS = {
    "Softmax": "probabilities",
    "QLinearSoftmax": "probabilities",
    "LogSoftmax": "log-probabilities",
    "Sigmoid": "sigmoid",
    "QLinearSigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
}
# Their results no longer tell which class a score belongs to.
SELECTING = frozenset(["TopK", "ArgMax", "ArgMin", "ReduceMax", "NonMaxSuppression"])
# Their results are between 0 and 1 only by chance.
UNBOUNDED = frozenset(
    [
        *(
            "Gemm",
            "MatMul",
            "Conv",
            "Add",
            "Sub",
            "Einsum",
            "QGemm",
            "QLinearMatMul",
            "QLinearConv",
        ),
        *("GlobalAveragePool", "AveragePool", "ReduceMean", "Relu"),
    ]
)
# Kinds that are probably not what they are said to be.
DOUBTFUL = {
    "logits": ("probabilities", "sigmoid"),
    "sigmoid": ("probabilities", "log-probabilities"),
}
TOLERANCE = 1e-3
OPTION = "--scores"
SUM = "its values, which sum to 1"
NO_ACTIVATION = "no Softmax or Sigmoid at the end"
RANGE = "the range of its values"
# 1,000 probabilities in FP16 add up to 1 as closely as this.
SUM_TOLERANCE = 5e-3


@dataclass(frozen=True)
class Scores:
    """How the output of a classifier's graph becomes probabilities.

    Attributes:
        kind: one of `KINDS`.
        origin: what it was recognised from, or `--scores`.
        classes: number of classes that are served, 2 if `is_single`.
        is_single: whether the graph gives one score p an image, which becomes [1 - p, p].
        needs_sigmoid: whether a Sigmoid has to be added to the graph.
        quantization: how an output of eight bits becomes numbers again.
    """

    kind: str
    origin: str
    classes: int
    is_single: bool = False
    needs_sigmoid: bool = False
    quantization: Quantization | None = None

    @property
    def are_logits(self) -> bool:
        """Whether a softmax turns them into probabilities."""
        return self.kind in {"logits", "log-probabilities"}


def recognise(
    model: ModelProto, output: str, values: npt.NDArray[Any], *, told: str | None = None
) -> Scores:
    """Recognise the kind of scores from the last nodes of a graph and from values.

    `values` [N, ...] are what the tensor `output` is for several different images, in any shape and
    type that the graph gives. `told` is one of `KINDS` and overrides what is recognised.

    Raises:
        BuildError: the output is not one number for each class, or one score an image that cannot
            become a probability, or `told` contradicts the values.
    """
    quantized = quantization(model, output) if values.dtype.kind in "iu" else None
    rows = _rows(output, values, quantized)
    operator = last_operator(model, output)
    if operator in SELECTING:
        raise BuildError(
            f"output {output} is a result of {operator}, not a score for each class; export the "
            f"graph without {operator}, or name another output with --output-name"
        )
    _check_not_constant(rows, operator)
    kind, origin = _recognised(rows, operator)
    scores = Scores(kind, origin, rows.shape[1], quantization=quantized)
    if not told and origin == RANGE and kind == "sigmoid":
        logger.warning(
            "all scores are between 0 and 1, so they are served as independent probabilities; "
            "use --scores logits if they are not"
        )
    if rows.shape[1] == 1:
        return _single(scores, rows, told)
    return _as_told(scores, rows, told) if told else scores


def probabilities(values: npt.NDArray[Any], scores: Scores) -> Rows:
    """Compute what is served, FP64 [N, classes], from the output [N, ...] of a graph.

    The last nodes of `NAME_pixels` and the postprocessing step do the same.
    """
    rows = _numbers(values, scores.quantization)
    if scores.needs_sigmoid:
        rows = 1 / (1 + np.exp(-rows))
    if scores.are_logits:
        exponents: Rows = np.exp(rows - rows.max(axis=1, keepdims=True))
        rows = exponents / exponents.sum(axis=1, keepdims=True)
    return np.hstack([1 - rows, rows]) if scores.is_single else rows


def _numbers(values: npt.NDArray[Any], quantized: Quantization | None) -> Rows:
    rows: Rows = values.reshape(len(values), -1).astype(np.float64)
    return (rows - quantized.zero_point) * quantized.scale if quantized else rows


def _rows(output: str, values: npt.NDArray[Any], quantized: Quantization | None) -> Rows:
    if sum(dim != 1 for dim in values.shape[1:]) > 1:
        raise BuildError(
            f"output {output} gives {list(values.shape[1:])} numbers an image; "
            "it must give one for each class"
        )
    if values.dtype.kind in "iu" and quantized is None:
        raise BuildError(
            f"output {output} is quantised by an unknown scale; "
            "export the graph with an output of FLOAT [N, classes]"
        )
    rows = _numbers(values, quantized)
    if np.isnan(rows).any():
        raise BuildError(f"output {output} is not a number (NaN) for random images")
    return rows


def _check_not_constant(rows: Rows, operator: str) -> None:
    constant = 0 if operator == "LogSoftmax" else 1
    can_be_softmax = rows.shape[1] == 1 or "Softmax" in operator
    if can_be_softmax and ACTIVATIONS.get(operator) != "sigmoid" and (rows == constant).all():
        raise BuildError(
            f"every score is {constant} for every image, as after a softmax over one score; export "
            "the graph without it"
        )


def _recognised(rows: Rows, operator: str) -> tuple[str, str]:
    """Recognise the kind, and say what it was recognised from."""
    kind, origin = ACTIVATIONS.get(operator), f"its last node {operator}"
    if kind in {"probabilities", "log-probabilities"}:
        return kind, origin
    if _are_distributions(rows):
        return "probabilities", SUM
    if (rows <= 0).all() and _are_distributions(np.exp(rows)):
        return "log-probabilities", SUM
    if kind:
        return kind, origin
    if operator in UNBOUNDED:
        return "logits", NO_ACTIVATION
    return "sigmoid" if _are_between_0_and_1(rows) else "logits", RANGE


def _are_between_0_and_1(rows: Rows) -> bool:
    return bool((rows >= -TOLERANCE).all() and (rows <= 1 + TOLERANCE).all())


def _are_distributions(rows: Rows) -> bool:
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=SUM_TOLERANCE))


def _single(scores: Scores, rows: Rows, told: str | None) -> Scores:
    """Make two classes of one score an image."""
    is_probability = scores.kind in {"sigmoid", "probabilities"}
    if told == "probabilities":
        _check_told(told, rows, advice="sigmoid")
        is_probability = True
    elif told in {"logits", "log-probabilities"} or not (told or is_probability):
        raise BuildError(
            "the graph gives one score an image, which has to become two classes; use --scores "
            "sigmoid if it is a logit, or --scores probabilities if it is a probability"
        )
    return replace(
        scores,
        kind="sigmoid",
        origin=OPTION if told else scores.origin,
        classes=2,
        is_single=True,
        needs_sigmoid=not is_probability,
    )


def _as_told(scores: Scores, rows: Rows, told: str) -> Scores:
    """Believe what is said of the scores unless it contradicts the values."""
    _check_told(told, rows, advice=scores.kind)
    if scores.kind in DOUBTFUL.get(told, ()):
        logger.warning(
            "the scores are said to be %s, although %s suggests %s",
            told,
            scores.origin,
            scores.kind,
        )
    return replace(
        scores, kind=told, origin=OPTION, needs_sigmoid=told == "sigmoid" and scores.are_logits
    )


def _check_told(told: str, rows: Rows, *, advice: str) -> None:
    fits = {
        "probabilities": _are_between_0_and_1(rows),
        "log-probabilities": bool((rows <= TOLERANCE).all()),
    }
    if not fits.get(told, True):
        raise BuildError(
            f"the scores are said to be {told}, but they are between {rows.min():.3g} and "
            f"{rows.max():.3g}; use --scores {advice}"
        )
