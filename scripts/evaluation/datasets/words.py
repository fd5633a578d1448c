"""Words for counts and examples in messages, and names that can be printed."""

from collections.abc import Collection

EXAMPLES = 3


def count(number: int, noun: str, plural: str = "") -> str:
    """Write a number and its noun, such as `1 image` or `50,000 images`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def examples(names: Collection[object]) -> str:
    """Quote the first few of some names: `'a', 'b', 'c' and 7 more`."""
    quoted = ", ".join(repr(name) for name, _ in zip(names, range(EXAMPLES), strict=False))
    more = len(names) - EXAMPLES
    return f"{quoted} and {more:,} more" if more > 0 else quoted


def printable(name: str) -> str:
    """Replace the bytes of a file name that are not UTF-8 by escapes."""
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
