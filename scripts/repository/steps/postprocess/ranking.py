"""From logits to the best classes."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt

DEFAULT_TOP_K = 5


def top_k_of(parameters: str, classes: int) -> int:
    """Read `top_k` from a request's parameters, a JSON text.

    Raises:
        ValueError: it is not a whole number from 1 to the number of classes.
    """
    value: Any = json.loads(parameters or "{}").get("top_k", min(DEFAULT_TOP_K, classes))
    if type(value) is not int or not 1 <= value <= classes:
        raise ValueError(f"top_k must be a whole number from 1 to {classes}, not {value!r}")
    return value


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Turn logits [N, classes] into probabilities; exact however large they are."""
    exponents: npt.NDArray[np.float32] = np.exp(logits - logits.max(axis=1, keepdims=True))
    exponents /= exponents.sum(axis=1, keepdims=True)
    return exponents


def best(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int32]:
    """Find the `k` highest of scores [N, classes], best first; equal ones in class order."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)
