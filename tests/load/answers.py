"""Checks of answers, and the kinds of failures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# A graph's last digits depend on the batch that an image is in. Classes within this share of the
# best probability may therefore change places.
TIE = 0.05
ROUNDING = 1e-6

TopClasses = frozenset[int]


class Failure(Exception):
    """A failed request; Locust counts failures by class and message."""


class Refused(Failure):
    """The request is invalid: INVALID_ARGUMENT or 400."""


class Overloaded(Failure):
    """The server, or a proxy in front of it, is overloaded: UNAVAILABLE, 503 or 429."""


class Unreachable(Failure):
    """The connection failed."""


class TimedOut(Failure):
    """Deadline exceeded."""


class ServerFailed(Failure):
    """Any other error of the server."""


class WrongAnswer(Failure):
    """The answer does not match the request."""


class NotRefused(Failure):
    """A broken image was answered, or the refusal does not name its position."""


@dataclass(frozen=True)
class Answer:
    """Class ids (integers), probabilities and labels (bytes), each [images, top_k]."""

    class_ids: npt.NDArray[Any]
    probabilities: npt.NDArray[Any]
    labels: npt.NDArray[Any]


def check(answer: Answer, images: int, top_k: int | None = None) -> None:
    """Check that an answer is complete; a `top_k` of None accepts the server's default.

    Raises:
        WrongAnswer: says what is wrong.
    """
    shape = answer.class_ids.shape
    if len(shape) != 2 or shape[0] != images or shape[1] < 1:
        raise WrongAnswer(f"CLASS_ID has shape {list(shape)} for {images} images")
    if top_k is not None and shape[1] != top_k:
        raise WrongAnswer(f"{shape[1]} classes for top_k {top_k}")
    if answer.probabilities.shape != shape or answer.labels.shape != shape:
        raise WrongAnswer("the outputs differ in shape")
    # Comparisons with NaN are false, so this rejects NaN as well.
    if not np.all((answer.probabilities >= 0) & (answer.probabilities <= 1 + ROUNDING)):
        raise WrongAnswer("a probability is not between 0 and 1")
    if not np.all(answer.probabilities[:, :-1] >= answer.probabilities[:, 1:]):
        raise WrongAnswer("the probabilities are not in descending order")
    if not all(label.strip() for label in answer.labels.flat):
        raise WrongAnswer("a label is empty")


def top_classes(answer: Answer) -> tuple[TopClasses, ...]:
    """Return for each image the best class and those that tie with it."""
    near = answer.probabilities >= answer.probabilities[:, :1] * (1 - TIE)
    return tuple(
        frozenset(map(int, ids[row])) for ids, row in zip(answer.class_ids, near, strict=True)
    )


def check_refusal(refusal: Refused, position: int) -> None:
    """Raise NotRefused unless a refusal names the broken image by its position in the batch."""
    if f"IMAGE[{position}]" not in str(refusal):
        raise NotRefused("the refusal does not name the broken image's position")
