"""Exports of the frameworks, served, against the frameworks' own answers.

tests/exports has the exports, the answers, and what makes them anew. The last test compares
docs/own-models-table.md with what was measured; OWN_MODELS_TABLE=write writes it.
"""

import io
import json
import logging
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import Classification, Classifier
from scripts import build_repository
from scripts.embedded import EmbeddedServer, Endpoints
from tests.conftest import ROOT
from tests.exports.rows import PHOTOGRAPHS, SECTIONS, Row, rows
from tests.integration.conftest import PROTOCOLS, url

BUILT = [row for row in rows() if not row.refused]
COMPARED = [row for row in BUILT if row.compared]
REFUSED = [row for row in rows() if row.refused]
TOP = 5

TABLE = ROOT / "docs" / "own-models-table.md"
MEASURED = re.compile(r"\d\.\de[+-]\d\d")

INTRODUCTION = """\
<!-- Written by tests/integration/test_own_models.py. -->

Each row is an export in `tests/exports`, with what the framework itself answers for three
photographs: its own preprocessing, then onnxruntime. "Same top 5": the same classes in the same
order. The last columns have the largest difference of a probability. Decoding is `exact`.
"""

# The largest difference of a probability, by row, protocol, and single or batch.
Differences = dict[tuple[str, str, str], float]


@dataclass(frozen=True)
class Outcome:
    """What the command did: its exit code, and what it printed to both streams."""

    exit_code: int
    printed: str


def build(row: Row, output: Path) -> Outcome:
    printed = io.StringIO()
    handler = logging.StreamHandler(printed)
    logging.getLogger().addHandler(handler)
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            code = build_repository.main([*row.arguments, "--cores", "1", "--output", str(output)])
    except SystemExit as error:  # an option that the command does not know
        code = int(error.code or 0)
    except Exception:  # noqa: BLE001 - only the test of this row fails
        code = -1
        printed.write(traceback.format_exc())
    finally:
        logging.getLogger().removeHandler(handler)
    return Outcome(code, printed.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, Outcome]:
    """Build each row in a repository of its own: adding to a large one takes ten times as long."""
    with pytest.MonkeyPatch.context() as patch:
        # There are so many preprocessing steps that one process must do for each.
        patch.setattr("scripts.repository.tuning.MAX_PREPROCESS_INSTANCES", 1)
        return {row.name: build(row, folder / row.name) for row in rows()}


@pytest.fixture(scope="module")
def server(folder: Path, outcomes: dict[str, Outcome]) -> Iterator[EmbeddedServer]:
    """Serve all rows in one server, without the graphs that no ensemble uses."""
    together = folder / "model_repository"
    together.mkdir()
    built = [row.name for row in COMPARED if outcomes[row.name].exit_code == 0]
    for part in (part for name in built for part in (folder / name).iterdir() if part.is_dir()):
        if not (together / part.name).exists():  # rows share some steps, which are the same
            (together / part.name).symlink_to(part)
    with EmbeddedServer(together, models=built, endpoints=Endpoints.free()) as server:
        yield server
        server.running.kill()  # to stop a hundred processes in order takes long


@pytest.fixture(scope="module")
def differences() -> Differences:
    return {}


@pytest.mark.parametrize("row", BUILT, ids=lambda row: row.name)
def test_it_is_built(row: Row, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[row.name]
    assert outcome.exit_code == 0, outcome.printed
    assert row.said in outcome.printed


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
def test_it_is_refused_in_one_line(row: Row, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[row.name]
    assert outcome.exit_code == 1, outcome.printed
    *before, line = outcome.printed.splitlines()
    assert all(each.startswith("warning: ") for each in before)
    assert line.startswith("error: ")
    assert row.refused in line


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("row", COMPARED, ids=lambda row: row.name)
def test_it_answers_as_its_framework_does(
    row: Row,
    protocol: str,
    outcomes: dict[str, Outcome],
    server: EmbeddedServer,
    differences: Differences,
) -> None:
    assert outcomes[row.name].exit_code == 0, "not built"
    with Classifier(url(server, protocol), model=row.name) as classifier:
        single = [classifier.image(file) for file in PHOTOGRAPHS]
        batch = classifier.batch(PHOTOGRAPHS)
    for way, results in (("single", single), ("batch", batch)):
        difference = max(
            compare(row, file, result) for file, result in zip(PHOTOGRAPHS, results, strict=True)
        )
        differences[row.name, protocol, way] = difference
        assert difference <= row.tolerance


def compare(row: Row, file: Path, result: Classification) -> float:
    """Compare one result with the framework's answer; return the largest difference."""
    answers = json.loads(row.answers_file.read_text("utf-8"))
    answer: dict[str, Any] = answers[file.name]
    served = result.predictions
    assert [each.class_id for each in served] == answer["ids"]
    if "labels" in answer:
        assert [each.label for each in served] == answer["labels"]
    probabilities = [each.probability for each in served]
    return float(np.abs(np.subtract(probabilities, answer["probabilities"])).max())


def test_the_documentation_has_the_table_of_all_exports(differences: Differences) -> None:
    if len(differences) < len(COMPARED) * len(PROTOCOLS) * 2:
        pytest.skip("some exports were not compared")
    table = "\n".join([INTRODUCTION, *lines(differences)])
    if os.environ.get("OWN_MODELS_TABLE") == "write":
        TABLE.write_text(table, "utf-8")
    assert MEASURED.sub("", TABLE.read_text("utf-8")) == MEASURED.sub("", table)


def lines(differences: Differences) -> Iterator[str]:
    """Write the tables, one for each section."""
    for title, section in SECTIONS.items():
        yield from (f"### {title}", "")
        yield (
            "| what people have | options | built | same top 5 "
            "| gRPC: one image, batch | HTTP: one image, batch |"
        )
        yield "| --- " * 6 + "|"
        yield from (line(row, differences) for row in section)
        yield ""


def line(row: Row, differences: Differences) -> str:
    options = row.options.replace("FILES/", "").replace("PHOTOGRAPHS", "photos")
    begin = f"| {row.people} | {f'`{options}`' if options else 'none'} |"
    if row.refused:
        return f"{begin} refused, naming `{row.refused}` | | | |"
    if not row.compared:
        return f"{begin} yes, with a warning that names `{row.said}` | | | |"
    measured = (
        ", ".join(f"{differences[row.name, protocol, way]:.1e}" for way in ("single", "batch"))
        for protocol in PROTOCOLS
    )
    return f"{begin} yes | yes | {' | '.join(measured)} |"
