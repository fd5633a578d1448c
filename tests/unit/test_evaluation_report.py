"""From journals to figures, and from figures to tables, sentences and files."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from scripts.evaluation import journal, report, results
from scripts.evaluation.errors import EvaluationError
from scripts.evaluation.journal import Identity, Record
from scripts.evaluation.report import Data, Report
from scripts.evaluation.results import REFERENCE, Agreement
from scripts.evaluation.sheet import Sheet
from scripts.evaluation.statistics import Share

LABELS = tuple("abcdefgh")
DATA = Data("photos", "one folder for each class", "5a", 4)


def write(folder: Path, model: str, records: Sequence[Record]) -> Path:
    identity = Identity(model, len(LABELS), len(records), "d", "l", {}, [(0, 1.0)])
    with journal.opened(folder / f"{model}.jsonl", identity) as opened:
        for record in records:
            opened.append(record)
    return folder / f"{model}.jsonl"


def answer(number: int, label: int | None, classes: Sequence[int], **fields: Any) -> Record:
    probabilities = (0.8, 0.1, 0.05, 0.03, 0.02)
    return Record(f"{number}.png", label, 0.1, tuple(classes), probabilities, **fields)


SERVED = [
    answer(0, 0, (0, 1, 2, 3, 4)),
    answer(1, 1, (0, 1, 2, 3, 4)),
    answer(2, 7, (0, 1, 2, 3, 4)),
    Record("3.png", 0, 0.1, error="not an image"),
]


def test_a_failed_image_counts_as_wrong(tmp_path: Path) -> None:
    found = results.result("birds", write(tmp_path, "birds", SERVED), 8)
    assert found.accuracy
    assert (found.accuracy.top1, found.accuracy.top5) == (Share(1, 4), Share(2, 4))
    assert [(each.name, each.reason) for each in found.failures] == [("3.png", "not an image")]
    assert found.accuracy.calibration_error == pytest.approx(0.8 - 1 / 3)
    assert found.images_per_second == pytest.approx(10)
    pairs = found.accuracy.confusion.most_confused()
    assert [(pair.label, pair.predicted, pair.count) for pair in pairs] == [(1, 0, 1), (7, 0, 1)]


def test_five_classes_have_no_top_5(tmp_path: Path) -> None:
    found = results.result("birds", write(tmp_path, "birds", SERVED[:2]), 5)
    assert found.accuracy
    assert found.accuracy.top5 is None


def test_a_model_that_answers_nothing_has_results_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path, "birds", SERVED[3:])
    found = results.result("birds", file, 8)
    assert found.accuracy
    assert found.accuracy.top1 == Share(0, 1)
    assert found.accuracy.calibration_error is None
    assert results.with_reference("birds", file, 8) is None
    assert caplog.messages == ["birds: no image could be compared with the reference"]


def test_models_are_compared_image_by_image(tmp_path: Path) -> None:
    other = [
        answer(0, 0, (0, 2, 1, 3, 4)),
        answer(1, 1, (1, 0, 2, 3, 4)),
        answer(2, 7, (7, 0, 1, 2, 3)),
        answer(3, 0, (0, 1, 2, 3, 4)),
    ]
    files = [write(tmp_path, "birds", SERVED), write(tmp_path, "other", other)]
    found = results.with_baseline("other", files[1], "birds", files[0], 8)
    assert found == Agreement(
        model="other",
        other="birds",
        top1=Share(1, 4),  # an image without an answer in the baseline differs
        top5=Share(2, 4),
        order=Share(0, 4),
        gain=0.75,  # of four images, one failed in the baseline
        p=2 * 0.5**3,
    )


@pytest.mark.parametrize(
    "other",
    [
        [*SERVED[:1], *SERVED[2:], SERVED[1]],  # as after a line was removed and sent again
        SERVED[:3],
        [answer(0, 1, (0, 1, 2, 3, 4)), *SERVED[1:]],
    ],
)
def test_models_are_compared_on_the_same_images_only(tmp_path: Path, other: list[Record]) -> None:
    files = [write(tmp_path, "birds", SERVED), write(tmp_path, "other", other)]
    for first, second in (files, files[::-1]):
        with pytest.raises(EvaluationError, match="do not have the same images in the same order"):
            results.with_baseline("other", second, "birds", first, 8)


def test_the_reference_is_compared_with_all_probabilities(tmp_path: Path) -> None:
    best = (0, 1, 2, 3, 4)
    records = [
        answer(number, None, best, reference=best[:: -1 if number == 3 else 1], difference=each)
        for number, each in enumerate([0.01, 0.03, 0.0, 0.2, *[0.001] * 16])
    ]
    records.append(answer(20, None, best, reference_error="it is broken"))
    records.append(Record("21.png", None, 0.1, error="broken"))
    file = write(tmp_path, "birds", records)
    found = results.with_reference("birds", file, 8)
    assert found
    assert (found.top1, found.top5, found.order) == (Share(19, 21), Share(20, 21), Share(19, 21))
    assert (found.gain, found.p) == (None, None)
    assert found.largest == 0.2
    assert found.mean == pytest.approx((0.24 + 0.016) / 20)
    names = [name for name, _ in found.farthest]
    assert names == [f"{number}.png" for number in (3, 1, 0, *range(4, 11))]
    failures = results.result("birds", file, 8).failures
    assert [(failure.name, failure.reason) for failure in failures] == [
        ("20.png", "the reference: it is broken"),
        ("21.png", "broken"),
    ]


def agreement(other: str, gain: float, p: float) -> Agreement:
    return Agreement("new", other, Share(3, 4), Share(2, 4), Share(1, 4), gain, p)


@pytest.mark.parametrize(
    ("gain", "p", "sentence"),
    [
        (
            -0.0123,
            0.01,
            "new is 1.23 percentage points below old in top-1, beyond chance (p = 0.01).",
        ),
        (
            0.0123,
            0.05,
            "new is 1.23 percentage points above old in top-1, which may be chance (p = 0.05).",
        ),
        (0.0, 1.0, "new has the same top-1 accuracy as old."),
    ],
)
def test_differences_are_named(gain: float, p: float, sentence: str) -> None:
    assert Report(DATA, LABELS, (), (agreement("old", gain, p),)).sentences() == [sentence]


def test_images_that_are_not_compared_are_counted() -> None:
    found = Report(replace(DATA, images=1004), LABELS, (), (agreement("old", 0.1, 0.2),))
    assert found.sentences()[0] == (
        "new: 1,000 of 1,004 images were not compared with old; neither has an answer for them."
    )


def test_p_values_of_several_comparisons_are_adjusted() -> None:
    found = Report(DATA, LABELS, (), tuple(agreement(name, 0.01, 0.03) for name in "ab"))
    sentences = found.sentences()
    assert "which may be chance (p = 0.06)" in sentences[0]
    assert sentences[2] == "These p are adjusted for 2 comparisons (Holm)."
    assert [each["p_adjusted"] for each in found.to_json()["agreements"]] == [0.06, 0.06]
    assert [each["p"] for each in found.to_json()["agreements"]] == [0.03, 0.03]


@pytest.mark.parametrize(
    ("known", "place"), [(0.05, "inside"), (0.04, "below"), (0.7, "above"), (0.65, "inside")]
)
def test_published_figures_are_compared_with_the_interval(
    tmp_path: Path, known: float, place: str
) -> None:
    result = results.result("birds", write(tmp_path, "birds", SERVED), 8)
    assert result.accuracy
    assert result.accuracy.top1.low == pytest.approx(0.0456, abs=1e-4)
    assert result.accuracy.top1.high == pytest.approx(0.6994, abs=1e-4)
    found = Report(DATA, LABELS, (result,), published={"birds": (known, 0.5)})
    rows = found.sheets()[0].rows
    assert rows[0][4:] == (f"{known:.2%}", place)
    assert any("the zoo's" in each for each in found.sentences())


def test_the_files_have_all_figures(tmp_path: Path) -> None:
    result = results.result("birds", write(tmp_path, "birds", SERVED), 8)
    report.write(Report(DATA, LABELS, (result,), (agreement("old", 0.1, 0.2),)), tmp_path)
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["data"] == {
        "path": "photos",
        "layout": "one folder for each class",
        "sha256": "5a",
        "images": 4,
    }
    top1 = values["models"]["birds"]["top1"]
    assert (top1["count"], top1["total"], top1["value"]) == (1, 4, 0.25)
    assert top1["low"] < 0.25 < top1["high"]
    assert values["models"]["birds"]["failures"] == [{"name": "3.png", "reason": "not an image"}]
    assert values["models"]["birds"]["most_confused"][0] == {
        "label": "b",
        "predicted": "a",
        "count": 1,
        "total": 1,
    }
    text = (tmp_path / "report.md").read_text()
    for line in (
        "4 images of `photos` (one folder for each class)",
        "- Images that the server refuses count as wrong.",
        "| birds | top-1 | 25.00% | 4.56 to 69.94% |",
        "| birds | 4 | 1 | 0.4667 | 10.0 |",
        "| new | old | 4 | 75.00% | 50.00% | 25.00% |",
        "| new | old | +10.00% | 0.2 |",
        "| 3.png | not an image |",
        "![Confusion matrix of birds](birds-confusion.png)",
    ):
        assert line in text


def test_tables_print_what_labels_contain() -> None:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(Sheet("[a]", ("[b]", "n"), [("[red]c[/red]", "1")]).to_rich())
    assert all(text in captured.get() for text in ("[a]", "[b]", "[red]c[/red]"))


def test_a_name_with_control_characters_stays_in_its_cell() -> None:
    sheet = Sheet("t", ("image", "n"), [("a\nb\x1b[2J", "1")])
    assert "| a\\nb\\x1b[2J | 1 |" in sheet.to_markdown()
    console = Console(width=80)
    with console.capture() as captured:
        console.print(sheet.to_rich())
    assert "a\\nb\\x1b[2J" in captured.get()


def test_the_reference_is_named_in_the_sentence_about_the_rate() -> None:
    found = Report(DATA, LABELS, (), (agreement(REFERENCE, 0.0, 1.0),))
    assert "The reference ran on this machine" in found.sentences()[0]
