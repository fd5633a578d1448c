"""Which errors are an image's own, and which end an evaluation."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest

from client import (
    SAMPLE,
    Classification,
    Classifier,
    ClientError,
    ImageFile,
    InvalidImage,
    Prediction,
    ServerFailed,
    ServerUnavailable,
    Source,
)
from scripts.evaluation.datasets import open_unlabelled
from scripts.evaluation.errors import EvaluationError
from scripts.evaluation.run import NOT_NUMBERS, Run
from scripts.repository.steps.preprocess.errors import ImageError

ANSWER = (Prediction(2, 0.75, "c"), Prediction(0, 0.2, "a"), Prediction(1, 0.05, "b"))


class Server:
    """Answers as a classifier does, and fails for each file's content as often as it is told."""

    def __init__(
        self,
        errors: dict[bytes, list[ClientError]],
        *,
        live: bool = True,
        answer: tuple[Prediction, ...] = ANSWER,
    ) -> None:
        self.errors, self.live, self.predictions = errors, live, answer

    def stream(self, sources: Iterable[Source], **_: object) -> Iterator[Classification]:
        images = iter(sources)
        while batch := list(islice(images, 4)):
            for source in batch:
                yield self.answer(source)

    def answer(self, source: Source) -> Classification:
        content = source.data if isinstance(source, ImageFile) else cast(Path, source).read_bytes()
        errors = self.errors.get(content, [])
        error = errors.pop(0) if errors else None
        return Classification(str(source), "birds", () if error else self.predictions, error=error)

    def image(self, source: Source) -> Classification:
        result = self.answer(source)
        _ = result.top
        return result

    def is_live(self) -> bool:
        return self.live


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    return tmp_path


def run(server: Server, folder: Path, reference: "Reference | None" = None) -> Run:
    dataset = open_unlabelled(folder)
    return Run(cast(Classifier, server), dataset, concurrency=2, reference=reference)


def test_an_image_that_the_server_refuses_is_a_failed_image(folder: Path) -> None:
    server = Server({b"b": [InvalidImage("not an image\nmore")]})
    records = list(run(server, folder).records())
    assert [record.error for record in records] == [None, "not an image", None]
    assert [record.classes for record in records] == [(2, 0, 1), (), (2, 0, 1)]


@pytest.mark.parametrize("error", [ServerFailed("it crashed"), ServerUnavailable("stub died")])
def test_an_image_that_alone_makes_the_server_fail_is_a_failed_image(
    folder: Path, error: ClientError
) -> None:
    records = list(run(Server({b"b": [error, error]}), folder).records())
    assert [record.error for record in records] == [None, str(error), None]


def test_an_image_gets_a_second_chance(folder: Path) -> None:
    records = list(run(Server({b"b": [ServerUnavailable("overload")]}), folder).records())
    assert [record.error for record in records] == [None] * 3


@pytest.mark.parametrize("is_live", [True, False])
def test_a_server_that_fails_ends_the_evaluation(folder: Path, is_live: bool) -> None:
    lost = ServerUnavailable("no server\nmore")
    server = Server({b"b": [lost], SAMPLE.read_bytes(): [lost]}, live=is_live)
    records = run(server, folder).records()
    assert next(records).name == "a.png"
    with pytest.raises(
        EvaluationError, match=r"^no server; run the same command again to continue$"
    ):
        next(records)


def test_an_answer_that_is_not_a_number_is_a_failure(folder: Path) -> None:
    server = Server({}, answer=(Prediction(2, float("nan"), "c"),))
    assert {record.error for record in run(server, folder).records()} == {NOT_NUMBERS}
    records = list(run(Server({}), folder, Reference(float("nan"))).records())
    assert [record.error for record in records] == [None] * 3
    assert records[0].reference_error == NOT_NUMBERS


def test_images_that_were_done_are_skipped(folder: Path) -> None:
    records = list(run(Server({}), folder).records({"a.png", "c.png"}))
    assert [record.name for record in records] == ["b.png"]


class Reference:
    """Gives probabilities beside the server, and fails for one content."""

    def __init__(self, first: float = 0.25) -> None:
        self.first = first

    def probabilities(self, data: bytes) -> npt.NDArray[np.float64]:
        if data == b"b":
            raise ImageError("it is broken")
        return np.array([self.first, 0.05, 0.7])


def test_the_reference_gets_the_same_bytes(folder: Path) -> None:
    records = list(run(Server({}), folder, Reference()).records())
    assert [record.reference for record in records] == [(2, 0, 1), (), (2, 0, 1)]
    assert [record.reference_error for record in records] == [None, "it is broken", None]
    assert records[0].difference == pytest.approx(0.05)
    assert records[1].difference is None


def test_the_answer_of_the_reference_is_kept_for_an_image_that_the_server_refuses(
    folder: Path,
) -> None:
    server = Server({name: [InvalidImage("not an image")] for name in (b"a", b"b")})
    records = list(run(server, folder, Reference()).records())
    assert [record.error for record in records] == ["not an image", "not an image", None]
    assert [record.reference for record in records] == [(2, 0, 1), (), (2, 0, 1)]
    assert [record.reference_error for record in records] == [None] * 3
    assert [record.difference for record in records[:2]] == [None, None]
