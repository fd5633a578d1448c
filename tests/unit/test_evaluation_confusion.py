"""Which classes are confused, and the picture of it."""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from scripts.evaluation.confusion import Confusion, Pair, draw
from scripts.repository.ensemble import IMAGENET_LABELS

Classes = npt.NDArray[np.int64]


def guessed(classes: int, images: int) -> tuple[Classes, Classes]:
    """Labels, and predictions of which three of four are right."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, images)
    others = rng.integers(0, classes, images)
    return labels, np.where(rng.random(images) < 0.75, labels, others)


def test_the_counts_are_those_of_scikit_learn() -> None:
    labels, predictions = guessed(7, 500)
    confusion = Confusion.of(labels, predictions, 7)
    expected = confusion_matrix(labels, predictions, labels=range(7))
    assert (confusion.matrix(7) == expected).all()
    assert (confusion.totals == expected.sum(axis=1)).all()


def test_neighbouring_classes_share_a_cell() -> None:
    confusion = Confusion.of([0, 1, 2, 3, 4, 4], [0, 0, 2, 2, 4, 0], 5)
    assert confusion.matrix(3).tolist() == [[2, 0, 0], [0, 2, 0], [1, 0, 1]]


def test_the_most_confused_pairs_come_first() -> None:
    labels = [0, 0, 0, 0, 1, 1, 2, 2, 2]
    predictions = [0, 1, 1, 1, 1, 0, 0, 2, 2]
    pairs = Confusion.of(labels, predictions, 3).most_confused(5)
    # Of two pairs with one image each, that of the smaller class is first.
    assert pairs == [Pair(0, 1, 3, 4), Pair(1, 0, 1, 2), Pair(2, 0, 1, 3)]
    assert Confusion.of(labels, predictions, 3).most_confused(1) == pairs[:1]


def test_a_classifier_without_mistakes_has_no_pairs(tmp_path: Path) -> None:
    confusion = Confusion.of([0, 1], [0, 1], 3)
    assert confusion.most_confused() == []
    draw(confusion, ["left", "right", "never"], tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    is_grey = (pixels == 211).all(axis=2)  # a class without images
    assert 0.05 < is_grey.mean() < 0.3


def test_a_classifier_that_answers_nothing_has_a_picture_too(tmp_path: Path) -> None:
    draw(Confusion.of([], [], 2), ["left", "right"], tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        assert image.format == "PNG"


def test_the_table_keeps_labels_from_changing_it() -> None:
    confusion = Confusion.of([0, 1], [1, 1], 2)
    table = confusion.to_sheet(["a | b <img>", "c & d"], "Most confused pairs").to_markdown()
    assert "| a \\| b &lt;img> | c &amp; d | 1 | 100.0% |" in table


@pytest.mark.parametrize("classes", [2, 1000])
def test_the_picture_is_readable(classes: int, tmp_path: Path) -> None:
    labels, predictions = guessed(classes, 20 * classes)
    names = ["$\\cost", "猫", *IMAGENET_LABELS[2:classes]]  # neither TeX nor all in the font
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(Confusion.of(labels, predictions, classes), names, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        image.load()
        assert image.format == "PNG"
        assert 1200 <= image.width <= 2400
        assert 600 <= image.height <= 1600
        grey = np.asarray(image.convert("L"))
    assert (grey < 100).mean() > 0.002  # text and cells are drawn
