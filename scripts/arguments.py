"""Validators for argparse: each reads one value and says what is wrong with it."""

import argparse
import math
from pathlib import Path

MAX_PORT = 65_535
MAX_GREY = 255
MAX_PERCENT = 100
Size = tuple[int, int]


def filled(text: str) -> str:
    """Read a text that is not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def path(text: str) -> Path:
    """Read a path; an empty one would be the current folder."""
    return Path(filled(text))


def count(text: str) -> int:
    """Read a whole number from 1."""
    number = _number(text, int, "a whole number")
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(number)


def counts(text: str) -> tuple[int, ...]:
    """Read whole numbers from 1 with commas between them."""
    return tuple(count(part.strip()) for part in text.split(","))


def port(text: str) -> int:
    """Read a TCP port."""
    number = count(text)
    if number > MAX_PORT:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_PORT}")
    return number


def seconds(text: str) -> float:
    """Read a finite duration above 0."""
    number = _number(text, float, "a number")
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("must be a finite number above 0")
    return number


def share(text: str) -> float:
    """Read a number from 0 to 1."""
    number = _number(text, float, "a number")
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return number


def percent(text: str) -> float:
    """Read a number from 0 to 100."""
    number = _number(text, float, "a number")
    if not 0 <= number <= MAX_PERCENT:
        raise argparse.ArgumentTypeError(f"must be from 0 to {MAX_PERCENT}")
    return number


def size(text: str) -> Size:
    """Read WIDTHxHEIGHT, both in pixels."""
    width, separator, height = text.strip().partition("x")
    if not (separator and width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 320x240")
    return int(width), int(height)


def height_and_width(text: str) -> Size:
    """Read one number for both sides, or HEIGHTxWIDTH, in pixels."""
    height, _, width = text.strip().partition("x")
    return count(height), count(width or height)


def grey_level(text: str) -> int:
    """Read a whole number from 0 to 255."""
    number = _number(text, int, "a whole number")
    if not 0 <= number <= MAX_GREY:
        raise argparse.ArgumentTypeError(f"must be from 0 to {MAX_GREY}")
    return int(number)


def _number(text: str, kind: type[int] | type[float], name: str) -> float:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {name}") from None
