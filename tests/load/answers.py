"""What counts as an answer, and what a failure is called."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Classes this near to the best, as a part of its probability, may take its place: a graph's last
# digits depend on the batch that an image came to be in.
TIE = 0.05
ROUNDING = 1e-6

Likely = frozenset[int]


class Failure(Exception):
    """A request that did not do what its user wanted; Locust counts by its kind and its words."""


class Refused(Failure):
    """The server says that the request is wrong: INVALID_ARGUMENT or 400."""


class Overloaded(Failure):
    """The server, or a proxy before it, has too much to do: UNAVAILABLE, 503 or 429."""


class Unreachable(Failure):
    """There is no connection."""


class TimedOut(Failure):
    """The answer did not come in time."""


class ServerFailed(Failure):
    """Any other error of the server's."""


class WrongAnswer(Failure):
    """An answer came, and it is not one to this request."""


class NotRefused(Failure):
    """A broken image was answered as if it were none, or refused without being named."""


@dataclass(frozen=True)
class Answer:
    """Class ids (integers), probabilities and labels (bytes), each [images, top_k]."""

    class_ids: npt.NDArray[Any]
    probabilities: npt.NDArray[Any]
    labels: npt.NDArray[Any]


def check(answer: Answer, images: int, top_k: int | None = None) -> None:
    """Return if it is a whole answer for so many images; `top_k` of None is the server's own.

    Raises:
        WrongAnswer: says what it lacks.
    """
    shape = answer.class_ids.shape
    if len(shape) != 2 or shape[0] != images or shape[1] < 1:
        raise WrongAnswer(f"CLASS_ID is {list(shape)} for {images} images")
    if top_k is not None and shape[1] != top_k:
        raise WrongAnswer(f"{shape[1]} classes for top_k {top_k}")
    if answer.probabilities.shape != shape or answer.labels.shape != shape:
        raise WrongAnswer("the three outputs are not of one shape")
    # Written so that NaN, which compares as false, is no probability either.
    if not np.all((answer.probabilities >= 0) & (answer.probabilities <= 1 + ROUNDING)):
        raise WrongAnswer("a probability is not between 0 and 1")
    if not np.all(answer.probabilities[:, :-1] >= answer.probabilities[:, 1:]):
        raise WrongAnswer("the probabilities do not descend")
    if not all(label.strip() for label in answer.labels.flat):
        raise WrongAnswer("a label is empty")


def likely(answer: Answer) -> tuple[Likely, ...]:
    """For each image the classes that may come first: the best, and those as good as tied."""
    near = answer.probabilities >= answer.probabilities[:, :1] * (1 - TIE)
    return tuple(
        frozenset(map(int, ids[row])) for ids, row in zip(answer.class_ids, near, strict=True)
    )


def check_refusal(refusal: Refused, place: int) -> None:
    """Return if a refusal names the broken image by its place in the batch.

    Raises:
        NotRefused: it does not.
    """
    if f"IMAGE[{place}]" not in str(refusal):
        raise NotRefused("the refusal does not name the broken image's place")
