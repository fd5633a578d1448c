"""Finds the classes of a classifier that the labels of a data set name."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from scripts.evaluation.datasets.words import count, examples
from scripts.evaluation.errors import EvaluationError
from scripts.repository.ensemble import IMAGENET_LABELS

LOGGER = logging.getLogger(__name__)
WORDNET_ID = re.compile(r"n\d{8}")
HAS_DIGIT = re.compile(r"\d")
NUMBER = re.compile(r"\d{1,9}", re.ASCII)
# What people put between words where a label has a space, or a slash that a folder cannot have.
SEPARATORS = re.compile(r"[\s_/-]+")
MOST = 0.9  # the part of a list's names that must fit by name before the rest may fit by position

Table = dict[str, set[int]]


@dataclass(frozen=True)
class Classes:
    """The classifier's labels in output order, each perhaps with a WordNet id as its first word."""

    labels: tuple[str, ...]

    def match(self, names: Iterable[str], *, origin: str) -> dict[str, int]:
        """Find the class index of each label of a data set.

        These rules are tried in turn: a name is a WordNet id; a class's label, its text after the
        WordNet id, or one of the text's synonyms (parts between commas); the part before the name's
        comma is; the same without regard to case and to what is between words; the name is the
        first word of a label, with a warning. If all names are numbers and no label begins with a
        number, they are class indices from 0, with a warning.

        `origin` says in messages where the names come from.

        Raises:
            EvaluationError: a name fits no class or several classes.
        """
        wanted = sorted(set(names))
        if wanted and all(map(NUMBER.fullmatch, wanted)) and not self._have_numbers:
            return self._by_number(wanted, origin)
        found = {name: self.candidates(name) for name in wanted}
        self._refuse_unclear(found, origin)
        matched = {name: next(iter(indices)) for name, indices in found.items()}
        self._say_guesses(matched, origin)
        return matched

    def match_list(
        self, names: Sequence[str], used: Iterable[int], *, origin: str
    ) -> dict[int, int]:
        """Find the class index of each number that is used of a list of all classes' names.

        Names that alone fit no class, or several classes, are taken by their position if both lists
        are equally long and all other names are in the classifier's order.

        Raises:
            EvaluationError: a number is beyond the list, or its name fits no class or several.
        """
        wanted = sorted(set(used))
        if beyond := [number for number in wanted if not 0 <= number < len(names)]:
            raise EvaluationError(
                f"{origin}: labels are numbers from 0 to {len(names) - 1}, "
                f"but the data has {examples(beyond)}; give the list that belongs to the data"
            )
        found = [self.candidates(name) for name in names]
        if self._in_order(found):
            by_position = [number for number in wanted if not found[number]]
            if by_position:
                pairs = [f"{names[number]} ({self.labels[number]})" for number in by_position]
                LOGGER.warning("%s: matched by position, not name: %s", origin, examples(pairs))
            return {number: number for number in wanted}
        self._refuse_unclear({names[number]: found[number] for number in wanted}, origin)
        matched = {number: next(iter(found[number])) for number in wanted}
        self._say_guesses({names[number]: index for number, index in matched.items()}, origin)
        return matched

    def candidates(self, name: str) -> set[int]:
        """Return the classes that a name may mean, by the first rule of `match` that finds any."""
        if WORDNET_ID.fullmatch(name):
            return self._wordnet_ids.get(name, set())
        return self._certain(name) or self._first_words.get(_fold(name), set())

    @cached_property
    def _rules(self) -> tuple[tuple[Table, Callable[[str], str]], ...]:
        texts = [_text(label) for label in self.labels]
        words = [_words(label) for label in self.labels]
        return (
            (_table([[label] for label in self.labels], str.strip), str.strip),
            (_table([[text] for text in texts], str.strip), str.strip),
            (_table(words, str.strip), str.strip),
            (_table(words, str.strip), _before_comma),
            (_table(words, _fold), _fold),
            (_table(words, _fold), lambda name: _fold(_before_comma(name))),
        )

    @cached_property
    def _first_words(self) -> Table:
        return _table([[_first(label).rstrip(",;:")] for label in self.labels], _fold)

    def _certain(self, name: str) -> set[int]:
        """Return the classes that a name means by any rule but that of the first word."""
        for table, fold in self._rules:
            if indices := table.get(fold(name)):
                return indices
        return set()

    @cached_property
    def _wordnet_ids(self) -> Table:
        ids = [[_first(label)] for label in self.labels]
        if any(WORDNET_ID.fullmatch(first) for (first,) in ids):
            return _table(ids, str)
        found = {name: self._certain(text) for name, text in IMAGENET_TEXTS.items()}
        if self._in_order([*found.values()]):
            return {name: {index} for index, name in enumerate(found)}
        # Two of ImageNet's classes are cranes: which of them is a label that says `crane`?
        times = Counter(index for indices in found.values() for index in indices)
        return {
            name: indices
            for name, indices in found.items()
            if all(times[index] == 1 for index in indices)
        }

    def _in_order(self, found: Sequence[set[int]]) -> bool:
        """Whether a list of names is in the classifier's order, as far as they are clear."""
        clear = sum(len(indices) == 1 for indices in found)
        return (
            len(found) == len(self.labels)
            and clear >= MOST * len(found)
            and all(index in indices for index, indices in enumerate(found) if indices)
        )

    @property
    def _have_numbers(self) -> bool:
        return any(NUMBER.fullmatch(_first(label)) for label in self.labels)

    def _by_number(self, names: Sequence[str], origin: str) -> dict[str, int]:
        numbers = {name: int(name) for name in names}
        beyond = [number for number in numbers.values() if number >= len(self.labels)]
        if beyond:
            raise EvaluationError(
                f"{origin}: the classifier has the classes 0 to {len(self.labels) - 1}, but the "
                f"data has {examples(sorted(beyond))}; number them from 0 in the classifier's order"
            )
        LOGGER.warning(
            "%s: the labels are numbers, taken for class indices from 0; %s is %r",
            *(origin, names[0], self.labels[numbers[names[0]]]),
        )
        return numbers

    def _refuse_unclear(self, found: dict[str, set[int]], origin: str) -> None:
        if unknown := [name for name, indices in found.items() if not indices]:
            raise EvaluationError(
                f"{origin}: {len(unknown):,} of {count(len(found), 'label')} fit no class of the "
                f"classifier, such as {self.labels[0]!r}: {examples(unknown)}; "
                "rename or remove them"
            )
        for name, indices in found.items():
            if len(indices) > 1:
                raise EvaluationError(
                    f"{origin}: {name!r} may be each of the classes "
                    f"{examples([self.labels[index] for index in sorted(indices)])}; "
                    "use WordNet ids, whole labels or class numbers"
                )

    def _say_guesses(self, matched: dict[str, int], origin: str) -> None:
        guesses = [
            f"{name} ({self.labels[index]})"
            for name, index in matched.items()
            if not HAS_DIGIT.search(name) and not self._certain(name)  # with a digit it is an id
        ]
        if guesses:
            LOGGER.warning("%s: matched by the first word only: %s", origin, examples(guesses))
        by_class: dict[int, list[str]] = defaultdict(list)
        for name, index in matched.items():
            by_class[index].append(name)
        for index, names in by_class.items():
            if len(names) > 1:
                LOGGER.warning(
                    "%s: %s are one class, %r", origin, examples(names), self.labels[index]
                )


def _first(label: str) -> str:
    return next(iter(label.split()), "")


def _text(label: str) -> str:
    """Return the text after the WordNet id; ImageNet's own if the label is an id alone."""
    first, _, rest = label.partition(" ")
    if not WORDNET_ID.fullmatch(first):
        return label
    return rest or IMAGENET_TEXTS.get(first, "")


def _words(label: str) -> list[str]:
    text = _text(label)
    return [text, *text.split(",")]


def _before_comma(name: str) -> str:
    return name.partition(",")[0].strip()


def _fold(name: str) -> str:
    return SEPARATORS.sub(" ", unicodedata.normalize("NFKC", name)).strip().casefold()


def _table(names: Sequence[Sequence[str]], fold: Callable[[str], str]) -> Table:
    """Return the classes that have each of the names in their list."""
    table: Table = defaultdict(set)
    for index, own in enumerate(names):
        for name in own:
            table[fold(name)].add(index)
    table.pop("", None)
    return dict(table)


IMAGENET_TEXTS = {label.partition(" ")[0]: label.partition(" ")[2] for label in IMAGENET_LABELS}
