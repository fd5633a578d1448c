"""The journal: what it keeps, and what it refuses to continue."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.evaluation import journal
from scripts.evaluation.errors import EvaluationError
from scripts.evaluation.journal import Identity, Record

IDENTITY = Identity(
    model="birds",
    classes=4,
    images=4,
    dataset_sha256="d1",
    labels_sha256="l1",
    recipe={"resize": [32, 32], "decoding": "fast"},
    sample=[(3, 0.5), (1, 0.3), (2, 0.1)],
)
RECORDS = [
    Record("a, with\nbreak ü.png", 1, 0.5, (1, 2), (0.75, 0.25)),
    Record("b.png", None, 0.25, error="not an image"),
    Record("c.png", 0, 0.125, (0, 1), (0.6, 0.4), reference=(0, 1), difference=0.01),
    Record("d.png", 0, 0.125, (0, 1), (0.6, 0.4), reference_error="no image"),
]


def written(file: Path, records: list[Record] = RECORDS) -> Path:
    with journal.opened(file, IDENTITY) as opened:
        for record in records:
            opened.append(record)
    return file


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = written(tmp_path / "birds.jsonl")
    assert list(journal.records(file)) == RECORDS
    assert len(file.read_bytes().splitlines()) == 1 + len(RECORDS)


@pytest.mark.parametrize("cut", range(1, 120, 17))
def test_a_torn_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    file = written(tmp_path / "birds.jsonl", RECORDS[:2])
    end = file.stat().st_size
    written(file, RECORDS[2:3])
    with file.open("r+b") as stream:
        stream.truncate(min(end + cut, file.stat().st_size - 1))
    written(file, RECORDS[3:])
    assert list(journal.records(file)) == [*RECORDS[:2], RECORDS[3]]


def test_an_empty_file_becomes_a_journal(tmp_path: Path) -> None:
    (tmp_path / "birds.jsonl").touch()
    assert list(journal.records(written(tmp_path / "birds.jsonl"))) == RECORDS


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    "content", ['{"mine": 1}', "{}\n", "line one\nlast line", "\n", "\0", "x" * 200_000]
)
def test_a_file_that_is_no_journal_is_never_changed(
    tmp_path: Path, content: str, restart: bool
) -> None:
    file = tmp_path / "birds.jsonl"
    file.write_text(content)
    with (
        pytest.raises(EvaluationError, match="is not the journal of an evaluation; move it"),
        journal.opened(file, IDENTITY, restart=restart),
    ):
        pass
    assert file.read_text() == content


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda file: file.symlink_to("/dev/null")])
def test_what_is_not_a_file_is_no_journal(tmp_path: Path, make: Callable[[Path], None]) -> None:
    file = tmp_path / "birds.jsonl"
    make(file)
    with (
        pytest.raises(EvaluationError, match=r"birds\.jsonl is not the journal of an evaluation"),
        journal.opened(file, IDENTITY),
    ):
        pass


@pytest.mark.parametrize("content", ["{", '{"version": 1, "model": "bi', '{"version": 1}\nx'])
def test_a_damaged_first_line_is_kept_until_a_restart(tmp_path: Path, content: str) -> None:
    file = tmp_path / "birds.jsonl"
    file.write_text(content)
    with (
        pytest.raises(EvaluationError, match=r"line 1 of .* is damaged; begin anew with --restart"),
        journal.opened(file, IDENTITY),
    ):
        pass
    assert file.read_text() == content
    with journal.opened(file, IDENTITY, restart=True) as opened:
        assert list(opened.records()) == []


def test_a_long_torn_line_is_dropped(tmp_path: Path) -> None:
    file = written(tmp_path / "birds.jsonl")
    with file.open("a") as stream:
        stream.write('{"name": "' + 200_000 * "x")
    with journal.opened(file, IDENTITY) as opened:
        assert list(opened.records()) == RECORDS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset_sha256": "d2"}, r"another data set \(4 images, now 4\)"),
        ({"images": 4000}, r"another data set \(4 images, now 4,000\)"),
        ({"model": "planes"}, "another model"),
        ({"labels_sha256": "l2"}, "other labels"),
        ({"recipe": {"resize": [64, 64], "decoding": "fast"}}, "another preprocessing recipe"),
        ({"reference": "r2"}, "another reference, or without one"),
        ({"sample": [(3, 0.5002), (1, 0.3), (2, 0.1)]}, "another build of the model"),
        ({"sample": [(3, 0.5), (1, 0.3), (7, 0.15)]}, "another build of the model"),
    ],
)
def test_another_evaluation_is_not_mixed_in(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    file = written(tmp_path / "birds.jsonl")
    before = file.read_bytes()
    other = replace(IDENTITY, **change)
    with (
        pytest.raises(EvaluationError, match=f"written with {message}.*--restart"),
        journal.opened(file, other),
    ):
        pass
    assert file.read_bytes() == before
    with journal.opened(file, other, restart=True) as opened:
        assert list(opened.records()) == []


@pytest.mark.parametrize(
    "sample",
    [
        [(3, 0.5), (1, 0.3), (2, 0.1)],
        [(3, 0.50004), (1, 0.29997), (2, 0.1)],
        [(3, 0.5), (1, 0.3), (9, 0.10003)],  # the last two are almost equally probable
    ],
)
def test_an_answer_that_differs_by_rounding_is_the_same(
    tmp_path: Path, sample: list[tuple[int, float]]
) -> None:
    file = written(tmp_path / "birds.jsonl")
    with journal.opened(file, replace(IDENTITY, sample=sample)) as opened:
        assert list(opened.records()) == RECORDS


@pytest.mark.parametrize(
    "values",
    [
        *({"version": 9}, {"other": 2}, {"classes": "4"}, {"classes": None}, {"images": 1.5}),
        *({"sample": []}, {"sample": 1}, {"sample": [[3]]}, {"sample": [["a", 0.5]]}),
        *({"sample": [[1, "b"]]}, {"sample": [[1, float("nan")]]}),
    ],
)
def test_a_damaged_first_line_is_one_error(tmp_path: Path, values: dict[str, Any]) -> None:
    file = written(tmp_path / "birds.jsonl")
    first, *others = file.read_text().splitlines(keepends=True)
    file.write_text("".join([json.dumps(json.loads(first) | values) + "\n", *others]))
    with (
        pytest.raises(EvaluationError, match=r"line 1 of .* is damaged; begin anew with --restart"),
        journal.opened(file, IDENTITY),
    ):
        pass


FAILED = {"name": "z.png", "label": 1, "seconds": 0.5, "error": "no"}
ANSWERED = {"name": "z.png", "label": 1, "seconds": 0.5, "classes": [1], "probabilities": [0.5]}
DAMAGED: list[dict[str, Any]] = [
    *(FAILED | {"name": value} for value in (None, ["z"], "\ud800", RECORDS[0].name)),
    *(FAILED | {"label": value} for value in (4, -1, "1", True, 1.0)),
    *(FAILED | {"seconds": value} for value in ("1", None, float("nan"), 10**400)),
    *(FAILED | {"error": value} for value in (None, 1)),
    *(FAILED | {"reference_error": {}}, FAILED | {"difference": "0"}, FAILED | ANSWERED),
    *(FAILED | {"reference": value} for value in (1, ["x"], [4], [[1]])),
    *(ANSWERED | {"classes": value} for value in (1, [], ["x"], [4], [1, 2])),
    *(ANSWERED | {"probabilities": value} for value in (1, "1", [], ["x"], [float("inf")])),
]


@pytest.mark.parametrize(
    "line",
    [
        *("{}", "[]", "null", "{", "", "\0", '{"name": 1, "other": 2}', "[" * 10_000),
        *map(json.dumps, DAMAGED),
    ],
)
def test_a_damaged_line_is_one_error(tmp_path: Path, line: str) -> None:
    file = written(tmp_path / "birds.jsonl", RECORDS[:1])
    with file.open("a") as stream:
        stream.write(f"{line}\n")
    with (
        journal.opened(file, IDENTITY) as opened,
        pytest.raises(EvaluationError, match=r"line 3 of .* is damaged; begin anew with --restart"),
    ):
        list(opened.records())


def test_more_records_than_images_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "birds.jsonl", [*RECORDS, replace(RECORDS[0], name="e.png")])
    with pytest.raises(EvaluationError, match=r"line 6 of .* is damaged"):
        list(journal.records(file))


def test_two_evaluations_do_not_write_the_same_journal(tmp_path: Path) -> None:
    file = tmp_path / "birds.jsonl"
    with (
        journal.opened(file, IDENTITY),
        pytest.raises(EvaluationError, match="another evaluation is writing"),
        journal.opened(file, IDENTITY),
    ):
        pass
    assert list(journal.records(written(file))) == RECORDS
