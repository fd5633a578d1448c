"""Reads the files that say which class each number of a ground-truth file is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.evaluation.datasets.classes import WORDNET_ID
from scripts.evaluation.datasets.ground_truth import LINE_END, read_text
from scripts.evaluation.datasets.words import first_line
from scripts.evaluation.errors import EvaluationError
from scripts.repository import labels

# A line of map_clsloc.txt: `n02119789 1 kit_fox`.
NUMBERED = re.compile(r"(n\d{8})\s+(\d{1,9})(?:\s+\S.*)?")


@dataclass(frozen=True)
class Synsets:
    """The class of each number, from 0 in a list of names, from 1 in ILSVRC's own files.

    `names` has WordNet ids or labels, `is_ilsvrc` is whether the file numbers them itself.
    """

    file: Path
    names: dict[int, str]
    is_ilsvrc: bool


def read_synsets(file: Path) -> Synsets:
    """Read meta.mat or map_clsloc.txt of an ILSVRC devkit, or a list of all classes in order.

    A list has one class on each line, perhaps with a text after its WordNet id; or it is in another
    form that the labels of a classifier can have.

    Raises:
        EvaluationError: the file is none of these.
    """
    if file.suffix.lower() == ".mat":
        return Synsets(file, _from_matlab(file), is_ilsvrc=True)
    lines = [line.strip() for line in LINE_END.split(read_text(file).rstrip())]
    numbered = [NUMBERED.fullmatch(line) for line in lines]
    if all(numbered):
        names = {int(match[2]): match[1] for match in numbered if match}
        if len(names) < len(lines):
            raise EvaluationError(f"{file} has a number twice; give the devkit's own file")
        return Synsets(file, names, is_ilsvrc=True)
    listed = labels.read(file)
    ids = [WORDNET_ID.match(label) for label in listed]
    names = {
        number: found[0] if found else label
        for number, (label, found) in enumerate(zip(listed, ids, strict=True))
    }
    return Synsets(file, names, is_ilsvrc=False)


def _from_matlab(file: Path) -> dict[int, str]:
    from scipy.io import loadmat  # noqa: PLC0415 - slow, and needed for this file only

    try:
        synsets: Any = loadmat(str(file), squeeze_me=True)["synsets"]
        numbers, ids = synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist()
        return {
            int(number): str(wordnet_id) for number, wordnet_id in zip(numbers, ids, strict=True)
        }
    except OSError as error:
        raise EvaluationError(f"cannot read {file}: {error.strerror or error}") from error
    except Exception as error:
        raise EvaluationError(
            f"{file} is not meta.mat of an ILSVRC2012 devkit: {first_line(error)}"
        ) from error
