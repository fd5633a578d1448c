"""The kinds of scores that a classifier's graph can give."""

import numpy as np
import numpy.typing as npt

# `logits` and `log-probabilities` get a softmax. `probabilities` are served as they are, and
# `sigmoid` are those of labels that are independent of each other.
KINDS = ("logits", "probabilities", "sigmoid", "log-probabilities")


def recognise(scores: npt.NDArray[np.float32]) -> str:
    """Recognise the kind of scores, FP32 [N, classes], from their values."""
    is_distribution = (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3)
    return "probabilities" if is_distribution else "logits"
