"""Reads the files that say which class each number of a ground-truth file is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.errors import last_line
from scripts.evaluation.datasets.classes import WORDNET_ID
from scripts.evaluation.datasets.ground_truth import LINE_END, read_text
from scripts.evaluation.errors import EvaluationError
from scripts.repository import labels

LOADER = Path(__file__).with_name("matlab.py")
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
    command = [sys.executable, "-I", str(LOADER), str(file)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=False)
    if loaded.returncode:
        raise EvaluationError(
            f"{file} is not meta.mat of an ILSVRC2012 devkit, or is damaged: "
            f"{last_line(loaded.stderr)}"
        )
    return dict(json.loads(loaded.stdout))
