"""The journal of an evaluation: a line for each image, from which a stopped one continues."""

import fcntl
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from scripts.evaluation.errors import EvaluationError

VERSION = 1
START = b'{"version": '  # of the first line of every journal
BLOCK = 65_536  # bytes
Answer = list[tuple[int, float]]  # class indices and their probabilities; JSON has lists
# The answer for the sample photograph differs a little with batch sizes and cores.
SAMPLE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Identity:
    """What was evaluated, and on what: a journal continues only an evaluation of the same.

    `sample` is the answer for the sample photograph, of `Served`. `reference` is the SHA-256 of the
    reference's ONNX file, or None without a reference.
    """

    model: str
    classes: int
    images: int
    dataset_sha256: str
    labels_sha256: str
    recipe: dict[str, Any]
    sample: Answer
    reference: str | None = None

    def difference(self, other: "Identity") -> str | None:
        """Name the first thing in which another identity differs."""
        if (self.dataset_sha256, self.images) != (other.dataset_sha256, other.images):
            return f"another data set ({self.images:,} images, now {other.images:,})"
        for name, text in (
            ("model", "another model"),
            ("labels_sha256", "other labels"),
            ("recipe", "another preprocessing recipe"),
            ("reference", "another reference, or without one"),
        ):
            if getattr(self, name) != getattr(other, name):
                return text
        if not _is_same_answer(self.sample, other.sample):
            return "another build of the model, whose answer for the sample photograph differs"
        return None


@dataclass(frozen=True)
class Record:
    """What became of one image.

    `classes` and `probabilities` are the served answer, best first; they are empty if `error` says
    why there is none. With a reference, `reference` has its best classes, and `difference` the
    largest one between the two probabilities of a class, or `reference_error` says why it has no
    answer. `seconds` is the time since the record before it, or since the start of its run.
    """

    name: str
    label: int | None
    seconds: float
    classes: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str | None = None
    reference: tuple[int, ...] = ()
    difference: float | None = None
    reference_error: str | None = None


DEFAULTS = {each.name: each.default for each in fields(Record)}


class Journal:
    """An open journal; `opened` opens it."""

    def __init__(self, file: Path, stream: BinaryIO) -> None:
        self.file = file
        self._stream = stream

    def append(self, record: Record) -> None:
        """Write a record to the file."""
        values = {key: value for key, value in asdict(record).items() if value != DEFAULTS[key]}
        self._write(values)

    def records(self) -> Iterator[Record]:
        """Read the records, one at a time.

        Raises:
            EvaluationError: a line is damaged.
        """
        return records(self.file)

    def begin(self, identity: Identity) -> None:
        """Write the first line, or compare it with `identity`; drop a last line that is torn.

        Raises:
            EvaluationError: the journal is of another evaluation, or its first line is damaged.
        """
        if not self._stream.seek(0, os.SEEK_END):
            self._write({"version": VERSION, **asdict(identity)})
        elif different := _identity(self.file).difference(identity):
            raise EvaluationError(
                f"{self.file} was written with {different}; "
                "choose another --output, or begin anew with --restart"
            )
        else:
            self._stream.truncate(_end_of_last_line(self._stream))

    def _write(self, values: dict[str, Any]) -> None:
        self._stream.write(json.dumps(values, ensure_ascii=False).encode() + b"\n")
        self._stream.flush()


@contextmanager
def opened(file: Path, identity: Identity, *, restart: bool = False) -> Iterator[Journal]:
    """Open a journal, or begin a new one; no other process can write it meanwhile.

    Raises:
        EvaluationError: it is not a journal, is of another evaluation, is damaged, or another
            process writes it.
        OSError: it cannot be written.
    """
    _refuse_foreign(file)
    with file.open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EvaluationError(
                f"another evaluation is writing {file}; wait for it, or choose another --output"
            ) from None
        if restart:
            stream.truncate(0)
        journal = Journal(file, stream)
        journal.begin(identity)
        yield journal


def _refuse_foreign(file: Path) -> None:
    """Refuse a file that was not written by an evaluation, so that it is never overwritten."""
    is_foreign = file.exists()
    if file.is_file():
        with file.open("rb") as stream:
            is_foreign = not START.startswith(stream.read(len(START)))
    if is_foreign:
        raise EvaluationError(
            f"{file} is not the journal of an evaluation; move it, or choose another --output"
        )


def records(file: Path) -> Iterator[Record]:
    """Read the records of a journal, one at a time.

    Raises:
        EvaluationError: a line is damaged.
    """
    identity = _identity(file)
    names: set[str] = set()
    with file.open("rb") as stream:
        next(stream)
        for number, line in enumerate(stream, 2):
            with _checked(file, number):
                record = _record(json.loads(line), identity.classes)
                if record.name in names or len(names) == identity.images:
                    raise ValueError(record.name)
            names.add(record.name)
            yield record


def _identity(file: Path) -> Identity:
    with file.open("rb") as stream, _checked(file, 1):
        line = stream.readline()
        if not line.endswith(b"\n"):
            raise ValueError(line)
        return _identity_of(json.loads(line))


@contextmanager
def _checked(file: Path, number: int) -> Iterator[None]:
    """Raise what is wrong with a line as one error."""
    try:
        yield
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RecursionError):
        raise EvaluationError(
            f"line {number} of {file} is damaged; begin anew with --restart"
        ) from None


def _identity_of(values: dict[str, Any]) -> Identity:
    version = values.pop("version")
    identity = Identity(**values)
    numbers = (identity.classes, identity.images)
    _check(version == VERSION and _are_integers(numbers) and identity.sample)
    for number, probability in identity.sample:
        _check(_are_integers([number]) and math.isfinite(probability))
    return identity


def _record(values: dict[str, Any], classes: int) -> Record:
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    record = Record(**values | lists)
    label, difference = record.label, record.difference
    indices = (*record.classes, *record.reference, 0 if label is None else label)
    numbers = (record.seconds, *record.probabilities, 0 if difference is None else difference)
    texts = (record.error, record.reference_error)
    "".join((record.name, *(text for text in texts if text is not None))).encode()
    _check(_are_integers(indices) and all(0 <= index < classes for index in indices))
    _check(all(map(math.isfinite, numbers)) and len(record.classes) == len(record.probabilities))
    _check(bool(record.classes) == (record.error is None))
    return record


def _are_integers(values: Iterable[object]) -> bool:
    return all(type(value) is int for value in values)


def _check(is_valid: object) -> None:
    if not is_valid:
        raise ValueError


def _end_of_last_line(stream: BinaryIO) -> int:
    """Return the position after the last line that is complete."""
    position = stream.seek(0, os.SEEK_END)
    while position:
        start = max(0, position - BLOCK)
        stream.seek(start)
        block = stream.read(position - start)
        if b"\n" in block:
            return start + block.rindex(b"\n") + 1
        position = start
    return 0


def _is_same_answer(first: Answer, second: Answer) -> bool:
    """Compare probabilities; a class that one of the answers lacks has at most its least one."""
    one, other = ({int(number): each for number, each in answer} for answer in (first, second))
    least = min(one.values()), min(other.values())
    return all(
        abs(one.get(number, least[0]) - other.get(number, least[1])) <= SAMPLE_TOLERANCE
        for number in one | other
    )
