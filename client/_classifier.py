"""The client's library."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from client import _sources
from client._endpoint import Endpoint, Protocol
from client._exceptions import InvalidImage, InvalidRequest
from client._results import Classification, Prediction
from client._sources import Source
from client._transport import Transport

DEFAULT_MODEL = "resnet50_v1"
DEFAULT_TOP_K = 5
DEFAULT_TIMEOUT = 30.0

# How the server says which image of a batch it refuses.
REFUSED_IMAGE = re.compile(r"IMAGE\[(?P<index>\d+)\]: (?P<why>.*)", re.DOTALL)


class Classifier:
    """An image classifier on a Triton server.

        with Classifier("localhost:8001", model="resnet50_v1", top_k=3) as classifier:
            for prediction in classifier.image("cat.jpg").predictions:
                print(prediction.label, prediction.probability)

    `url` is one like `localhost:8001`, `grpc://host:8001` or `http://host:8000`, and `timeout` the
    seconds that a request may take.

    Raises:
        ValueError: the URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str = DEFAULT_MODEL,
        top_k: int = DEFAULT_TOP_K,
        protocol: Protocol | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self.model = model
        self.top_k = top_k
        self._transport = Transport(Endpoint.parse(url, protocol), timeout=timeout)

    def __enter__(self) -> "Classifier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def image(self, source: Source) -> Classification:
        """Classify one image.

            classifier.image("cat.jpg").top

        A source is a path, an http or https URL, the bytes of an image file, a file object opened
        for bytes, a Pillow image, or a uint8 array [height, width, 3].

        Raises:
            ClientError: one of its kinds.
        """
        return self.batch([source])[0]

    def batch(self, sources: Iterable[Source]) -> list[Classification]:
        """Classify images in one request: all of them, or none.

            [result.top.label for result in classifier.batch(["cat.jpg", "dog.png"])]

        Raises:
            ClientError: one of its kinds; `InvalidImage` names the source that was refused.
        """
        sources = list(sources)
        images = [_sources.read(source) for source in sources]
        names = [_sources.name_of(source) for source in sources]
        if not images:
            return []
        try:
            answer = self._transport.infer(self.model, images, {"top_k": self.top_k})
        except InvalidRequest as error:
            raise _blame(error, names) from error
        return [
            Classification(name, self.model, _predictions(answer, row))
            for row, name in enumerate(names)
        ]

    def models(self) -> list[str]:
        """Name the classifiers that the server has ready, without the parts they are made of."""
        return self._transport.ready_ensembles()


def _blame(error: InvalidRequest, names: Sequence[str]) -> InvalidRequest:
    """Find the source that the server's message is about."""
    refused = REFUSED_IMAGE.search(str(error))
    if not refused:
        return error
    return InvalidImage(refused["why"], model=error.model, source=names[int(refused["index"])])


def _predictions(answer: Any, row: int) -> tuple[Prediction, ...]:  # noqa: ANN401
    columns = (answer.as_numpy(name)[row] for name in ("CLASS_ID", "PROBABILITY", "LABEL"))
    return tuple(
        Prediction(int(class_id), float(probability), label.decode())
        for class_id, probability, label in zip(*columns, strict=True)
    )
