"""What a classifier says of an image, and what a server says of its classifiers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from client._exceptions import ClientError


@dataclass(frozen=True)
class Prediction:
    """One class, its probability in 0..1 and its label.

    print(f"{prediction.label}: {prediction.probability:.1%}")
    """

    class_id: int
    probability: float
    label: str


@dataclass(frozen=True)
class Classification:
    """The best classes of one image, best first, or the error that stands in their place.

        for result in classifier.stream(paths):
            print(result.source, result.error or result.top.label)

    `source` names the image: its path, or what else it came from. `seconds` is what its request
    took, tries that failed and the waits between them included, and `request_id` what the server's
    log calls it.
    """

    source: str
    model: str
    predictions: tuple[Prediction, ...] = ()
    seconds: float = 0.0
    request_id: str | None = None
    error: ClientError | None = None

    @property
    def top(self) -> Prediction:
        """The best of them.

        Raises:
            ClientError: the image failed; this is its error.
        """
        if self.error:
            raise self.error
        return self.predictions[0]


@dataclass(frozen=True)
class Model:
    """A classifier on the server.

        ready = [model.name for model in classifier.models() if model.ready]

    `recipe` holds the numbers of its preprocessing (`resize`, `crop`, `mean`, `std`) and `classes`
    their number; both are None unless it is ready and says so. `reason` is the server's word on
    why it is not ready.
    """

    name: str
    ready: bool
    classes: int | None = None
    recipe: Mapping[str, Any] | None = None
    reason: str = ""
