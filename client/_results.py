"""The results: an image's classes, and a server's models."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._exceptions import ClientError


@dataclass(frozen=True)
class Prediction:
    """One class: its index from 0, its probability from 0 to 1, and its label.

    print(f"{prediction.label}: {prediction.probability:.1%}")
    """

    class_id: int
    probability: float
    label: str


@dataclass(frozen=True)
class Classification:
    """The most probable classes of one image, best first, or the error if it failed.

        for result in classifier.stream(paths):
            print(result.source, result.error or result.top.label)

    `source` is the image's path or another name for it. `seconds` is the duration of its request,
    including retries and the waits between them, and `request_id` the id of the request in the
    server's log.
    """

    source: str
    model: str
    predictions: tuple[Prediction, ...] = ()
    seconds: float = 0.0
    request_id: str | None = None
    error: ClientError | None = None

    @property
    def top(self) -> Prediction:
        """The most probable class.

        Raises:
            ClientError: the error of the image, if it failed.
        """
        if self.error:
            raise self.error
        return self.predictions[0]


@dataclass(frozen=True)
class Model:
    """A classifier on the server.

        ready = [model.name for model in classifier.models() if model.ready]

    `recipe` holds the preprocessing parameters, among them `resize` and `crop`, which are [height,
    width] in pixels (one number on servers before 0.4), `mean` and `std`. `classes` is the number
    of classes. Both are None if the model is not ready or does not state them. `crops` is the
    number of crops of an image, of which the model takes the mean. `reason` says why, if the model
    is not ready.
    """

    name: str
    ready: bool
    classes: int | None = None
    recipe: Mapping[str, Any] | None = None
    crops: int = 1
    reason: str = ""
