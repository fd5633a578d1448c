"""Gives each image the label that a ground-truth file has for it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from client import SUFFIXES
from scripts.evaluation.datasets.classes import Classes
from scripts.evaluation.datasets.dataset import Images, ImageSet
from scripts.evaluation.datasets.ground_truth import ByName, InOrder
from scripts.evaluation.datasets.labelling import SPLITS, label_images
from scripts.evaluation.datasets.synsets import Synsets
from scripts.evaluation.datasets.words import count, examples
from scripts.evaluation.errors import EvaluationError
from scripts.repository.ensemble import IMAGENET_LABELS

LOGGER = logging.getLogger(__name__)
# ImageNet's validation images; the number is that of the line in the ground truth.
ILSVRC_NAME = re.compile(r"ILSVRC2012_val_(\d{8})")
ILSVRC_IMAGES = 50_000
DIGITS = re.compile(r"[0-9]+")
WIDTH = 20  # of the numbers in names
ALPHABETICAL = [label.split()[0] for label in IMAGENET_LABELS]


def by_ground_truth(
    images: Images,
    truth: InOrder | ByName,
    classes: Classes,
    synsets: Synsets | None,
    *,
    origin: str,
) -> ImageSet:
    """Label images as a ground-truth file says.

    Raises:
        EvaluationError: the file does not belong to the images, or a label fits no class.
    """
    if isinstance(truth, InOrder):
        keys: list[str | None] = list(_in_order(images.names, truth))
        layout = f"labels in the order of the file names, from {truth.file.name}"
    else:
        keys = _by_name(images.names, truth, origin)
        layout = f"labels by file name, from {truth.file.name}"
    matched = _class_indices(truth, {key for key in keys if key}, classes, synsets, images.names)
    if synsets and truth.are_numbers:
        layout += f" and {synsets.file.name}"
    labels = [matched[key] if key else None for key in keys]
    return label_images(images, labels, layout=layout, origin=origin)


def _in_order(names: Sequence[str], truth: InOrder) -> Sequence[str]:
    numbers = [ILSVRC_NAME.match(name.rpartition("/")[2]) for name in names]
    lines = len(truth.labels)
    if all(numbers) and lines == ILSVRC_IMAGES:
        positions = [int(found[1]) - 1 for found in numbers if found]
        if all(0 <= position < lines for position in positions):
            if len(positions) < lines:
                LOGGER.warning(
                    "%s: used %s of %s", truth.file, f"{len(positions):,}", count(lines, "line")
                )
            return [truth.labels[position] for position in positions]
    if lines != len(names):
        raise EvaluationError(
            f"{truth.file} has {count(lines, 'line')} for {count(len(names), 'image')}; "
            "it needs one for each image, in the order of the file names"
        )
    if len({name.rpartition("/")[0] for name in names}) > 1:
        raise EvaluationError(
            f"{truth.file} has labels in the order of the file names, but the images lie in "
            "several folders; write a file and its label on each line, as CSV"
        )
    for name, other in zip(names, sorted(names, key=_as_people_sort), strict=True):
        if name != other:
            raise EvaluationError(
                f"{truth.file} has labels in the order of the file names, but either {name!r} or "
                f"{other!r} may come first; write a file and its label on each line, as CSV"
            )
    return truth.labels


def _as_people_sort(name: str) -> str:
    """Return a key by which 2 comes before 10, and `a` before `B`."""
    return DIGITS.sub(lambda digits: digits[0].zfill(WIDTH), name.casefold())


def _by_name(names: Sequence[str], truth: ByName, origin: str) -> list[str | None]:
    find = _Finder(names)
    labels: list[str | None] = [None] * len(names)
    renamed, unknown, repeated = [], [], []
    for name, label in truth.rows:
        position = find(name)
        if position is None:
            unknown.append(name)
            continue
        if _parts(name) != _parts(names[position]):
            renamed.append(name)
        if labels[position] is None:
            labels[position] = label or None
        elif labels[position] == label:
            repeated.append(name)
        else:
            raise EvaluationError(
                f"{truth.file} has two labels for {names[position]!r}, {labels[position]!r} and "
                f"{label!r}; leave one"
            )
    _refuse_splits(renamed, truth)
    if len(unknown) == len(truth.rows):
        raise EvaluationError(
            f"{truth.file} has labels for {examples(unknown)}, but {origin} has the images "
            f"{examples(names)}; give the file that belongs to these images"
        )
    for kind, what in ((unknown, "without an image in"), (repeated, "listed again, for")):
        if kind:
            LOGGER.warning(
                "%s: %s %s %s: %s",
                *(truth.file, count(len(kind), "label"), what, origin, examples(kind)),
            )
    return labels


def _refuse_splits(names: Iterable[str], truth: ByName) -> None:
    splits = {part for name in names for part in _parts(name)[:-1] if part.lower() in SPLITS}
    if len(splits) > 1:
        raise EvaluationError(
            f"{truth.file} has labels for {examples(sorted(splits))}; keep those of one of them"
        )


class _Finder:
    """Finds images by what a ground-truth file calls them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._exact = [_unique((form(name), i) for i, name in enumerate(names)) for form in FORMS]
        self._ends = [
            _unique((end, i) for i, name in enumerate(names) for end in _ends(form(name)))
            for form in FORMS
        ]

    def __call__(self, name: str) -> int | None:
        """Find the image whose path is this name, or ends with it, or with which the name ends.

        If there is none, the suffixes of both are not regarded.
        """
        path = "/".join(_parts(name))
        for form, exact, ends in zip(FORMS, self._exact, self._ends, strict=True):
            key = form(path)
            found = exact.get(key, ends.get(key))
            shorter = (exact[end] for end in _ends(key) if end in exact)
            if found is not None or (found := next(shorter, None)) is not None:
                return found
        return None


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _ends(path: str) -> Iterator[str]:
    """Return the path without its first folder, without its first two folders, and so on."""
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def _unique(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    positions: dict[str, int] = {}
    repeated = set()
    for name, position in pairs:
        if name in positions:
            repeated.add(name)
        positions[name] = position
    return {name: position for name, position in positions.items() if name not in repeated}


def _without_suffix(path: str) -> str:
    rest, _, suffix = path.rpartition(".")
    return rest if rest and f".{suffix.lower()}" in SUFFIXES else path


FORMS: tuple[Callable[[str], str], ...] = (str, _without_suffix)


def _class_indices(
    truth: InOrder | ByName,
    keys: set[str],
    classes: Classes,
    synsets: Synsets | None,
    names: Sequence[str],
) -> dict[str, int]:
    if not truth.are_numbers:
        return classes.match(keys, origin=str(truth.file))
    if isinstance(truth, InOrder):
        return _by_number(keys, classes, _ilsvrc_numbers(truth, synsets), truth.file)
    if synsets and synsets.is_ilsvrc:
        return _by_number(keys, classes, synsets.names, truth.file)
    if synsets:
        listed, origin = [*synsets.names.values()], str(synsets.file)
    elif all(ILSVRC_NAME.search(name) for name in names):
        listed, origin = ALPHABETICAL, str(truth.file)
    else:
        return classes.match(keys, origin=str(truth.file))
    matched = classes.match_list(listed, map(int, keys), origin=origin)
    return {key: matched[int(key)] for key in keys}


def _by_number(
    keys: set[str], classes: Classes, names: Mapping[int, str], file: Path
) -> dict[str, int]:
    if unknown := sorted(int(key) for key in keys if int(key) not in names):
        raise EvaluationError(
            f"{file} has the numbers {examples(unknown)}, which the list of synsets has not; "
            "give the file that belongs to it with --synsets"
        )
    used = {key: names[int(key)] for key in keys}
    matched = classes.match(used.values(), origin=str(file))
    return {key: matched[name] for key, name in used.items()}


def _ilsvrc_numbers(truth: InOrder, synsets: Synsets | None) -> Mapping[int, str]:
    if synsets is None:
        raise EvaluationError(
            f"{truth.file} has ILSVRC's own class numbers; give meta.mat or map_clsloc.txt of the "
            "devkit, which say what they mean, with --synsets"
        )
    if synsets.is_ilsvrc:
        return synsets.names
    listed = list(synsets.names.values())
    if listed == sorted(listed):
        raise EvaluationError(
            f"{synsets.file} is in alphabetical order, which is not that of ILSVRC's numbers in "
            f"{truth.file}; give meta.mat or map_clsloc.txt of the devkit"
        )
    LOGGER.warning(
        "%s: taken for the list of ILSVRC's numbers in %s, from 1; 1 is %r",
        *(synsets.file, truth.file, listed[0]),
    )
    return dict(enumerate(listed, 1))
