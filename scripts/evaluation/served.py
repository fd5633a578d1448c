"""What a server tells about a classifier: its labels, its recipe, and how it answers."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client import SAMPLE, Classifier, ClientError, Model, ServerUnavailable, Tls
from scripts.evaluation.errors import EvaluationError
from scripts.repository import labels
from scripts.repository.catalog import CATALOG
from scripts.repository.ensemble import IMAGENET_LABELS
from scripts.repository.tuning import MAX_TOP_K

BEST = 5  # classes that are kept of each answer


@dataclass(frozen=True)
class Server:
    """How to reach the server, or several that have the same models.

    Its fields are those of `client.Classifier`.
    """

    urls: tuple[str, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: Tls | None = None
    retries: int = 8  # so that a server may restart

    def classifier(self, model: str, top_k: int | None = None) -> Classifier:
        """Return a client of one model.

        Raises:
            EvaluationError: a URL or a header is invalid.
        """
        try:
            return Classifier(
                self.urls,
                model=model,
                top_k=top_k,
                headers=self.headers,
                tls=self.tls,
                retries=self.retries,
            )
        except ValueError as error:
            raise EvaluationError(str(error)) from error


@dataclass(frozen=True)
class Served:
    """A classifier on the server.

    `labels` are in output order. `sample` has the best classes of the client's sample photograph
    with their probabilities, best first: they tell one build of a classifier from another.
    """

    name: str
    labels: tuple[str, ...]
    recipe: Mapping[str, Any]
    sample: tuple[tuple[int, float], ...]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.labels)

    @property
    def labels_sha256(self) -> str:
        """The SHA-256 of the labels, one a line."""
        return hashlib.sha256("\n".join(self.labels).encode()).hexdigest()

    @property
    def published(self) -> tuple[float, float] | None:
        """The zoo's top-1 and top-5 as fractions, if it is a model of the zoo with its recipe."""
        model = CATALOG.get(self.name)
        if not model or self.labels != IMAGENET_LABELS:
            return None
        recipe = json.loads(model.recipe.to_json()) | {"decoding": self.recipe.get("decoding")}
        return (model.top1 / 100, model.top5 / 100) if recipe == self.recipe else None


def describe(server: Server, name: str, labels_file: Path | None = None) -> Served:
    """Ask the server about a model.

    Args:
        server: the server.
        name: the model.
        labels_file: a file with the labels in output order, instead of those of the server.

    Raises:
        EvaluationError: no server responds, it does not have the model, or the labels are unknown.
        BuildError: the file is not one of labels.
    """
    told = labels.read(labels_file) if labels_file else ()
    with as_evaluation_error():
        with server.classifier(name) as classifier:
            model = _find(name, classifier.models())
        classes = model.classes or len(told)
        if not classes or (classes > MAX_TOP_K and not told):
            raise EvaluationError(
                f"{name} does not tell the labels of all its classes: give them with --labels FILE"
            )
        if told and len(told) != classes:
            raise EvaluationError(f"{labels_file} has {len(told)} labels; {name} has {classes}")
        with server.classifier(name, min(classes, MAX_TOP_K)) as classifier:
            answer = classifier.image(SAMPLE).predictions
    by_class = {each.class_id: each.label for each in answer}
    return Served(
        name,
        told or tuple(by_class[number] for number in range(classes)),
        model.recipe or {},
        tuple((each.class_id, each.probability) for each in answer[:BEST]),
    )


@contextmanager
def as_evaluation_error() -> Iterator[None]:
    """Raise an error of the client as one line.

    Raises:
        EvaluationError: instead of a ClientError.
    """
    try:
        yield
    except ServerUnavailable as error:
        hint = "start it with python -m scripts.serve, or give its --url"
        raise EvaluationError(f"{reason(error)}; {hint}") from error
    except ClientError as error:
        raise EvaluationError(reason(error)) from error


def reason(error: ClientError) -> str:
    """Return the first line of an error's message; Triton's tracebacks follow in others."""
    return str(error).partition("\n")[0]


def _find(name: str, models: list[Model]) -> Model:
    for model in models:
        if model.name == name:
            if not model.ready:
                raise EvaluationError(f"{name} is not ready: {model.reason}")
            return model
    ready = ", ".join(model.name for model in models if model.ready) or "no classifier"
    raise EvaluationError(f"the server has no classifier {name}; it has: {ready}")
