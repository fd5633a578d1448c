"""What a load test may be told, on the command line and in Locust's web form."""

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from client._endpoint import Endpoint

MAX_PIXELS = 100_000_000  # what the server takes
MAX_EDGE = 65_500  # what JPEG takes
DEFAULT_HOST = "localhost:8001"

Size = tuple[int, int]
Primitive = str | int | float


class Parser(Protocol):
    """Locust's parser: argparse's, with a word for what stays out of the web form."""

    def add_argument(self, *names: str, **about: Any) -> Any:
        """Add an option."""


def _name(text: str) -> str:
    if not text.strip():
        raise ValueError("a model has a name")
    return text.strip()


def _count(text: str) -> int:
    number = _number(text, int)
    if number < 1:
        raise ValueError(f"{text} is none; give a whole number from 1")
    return int(number)


def _seconds(text: str) -> float:
    number = _number(text, float)
    if not 0 < number < math.inf:
        raise ValueError(f"{text} is no time; give a number of seconds above 0")
    return number


def _share(text: str) -> float:
    number = _number(text, float)
    if not 0 <= number <= 1:
        raise ValueError(f"{text} is no share; give a number from 0 to 1")
    return number


def _number(text: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(text)
    except ValueError:
        whole = "whole " if kind is int else ""
        raise ValueError(f"{text!r} is no {whole}number") from None


def _sizes(text: str) -> tuple[Size, ...]:
    return tuple(_size(part) for part in text.split(","))


def _size(text: str) -> Size:
    width, by, height = text.strip().partition("x")
    if not (by and width.isdecimal() and height.isdecimal()):
        raise ValueError(f"{text!r} is no size; write sizes like 320x240,500x375")
    size = int(width), int(height)
    if not (min(size) > 0 and max(size) <= MAX_EDGE and size[0] * size[1] <= MAX_PIXELS):
        raise ValueError(f"no JPEG of {text.strip()} can be made that the server takes")
    return size


def _steps(text: str) -> tuple[int, ...]:
    if not text.strip():
        return ()
    steps = tuple(_count(part.strip()) for part in text.split(","))
    if list(steps) != sorted(set(steps)):
        raise ValueError(f"{text!r} does not rise step by step; write steps like 1,2,4,8")
    return steps


@dataclass(frozen=True)
class Option:
    """One option: `read` makes its value of what was typed and raises ValueError where it cannot.

    Locust hands values on as they were parsed, to its form and its workers, so what the parser
    keeps is the text or the number, and `read` is applied again where the value is needed.
    """

    dest: str
    default: Primitive
    read: Callable[[str], Any]
    metavar: str
    help: str

    def checked(self, text: str) -> Primitive:
        """Refuse what cannot be read, for argparse."""
        try:
            self.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return type(self.default)(text)


OPTIONS = (
    Option("model", "resnet50_v1", _name, "NAME", "a classifier of the server"),
    Option(
        "sizes",
        "320x240,500x375,1280x960",
        _sizes,
        "WxH,...",
        "of the JPEGs, in pixels; sent in turn",
    ),
    Option("batch_size", 1, _count, "N", "images in a request"),
    Option("top_k", 5, _count, "K", "classes for each image"),
    Option("broken", 0.0, _share, "SHARE", "0 to 1, of requests that hold a broken image"),
    Option("timeout", 30.0, _seconds, "SECONDS", "for each request"),
    Option(
        "steps",
        "",
        _steps,
        "N,...",
        "users, step by step, such as 1,2,4,8, in place of -u, -r and -t; finds the knee",
    ),
    Option("step_seconds", 15.0, _seconds, "SECONDS", "measured in each step"),
)


@dataclass(frozen=True)
class Options:
    """What to send: see `OPTIONS`; sizes are (width, height) in pixels, no steps are ()."""

    model: str
    sizes: tuple[Size, ...]
    batch_size: int
    top_k: int
    broken: float
    timeout: float
    steps: tuple[int, ...]
    step_seconds: float

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> "Options":
        """Read parsed options, or a form's fields.

        Raises:
            ValueError: one of them cannot be; names it.
        """
        values = {}
        for option in OPTIONS:
            try:
                values[option.dest] = option.read(str(given.get(option.dest, option.default)))
            except ValueError as error:
                raise ValueError(f"{_flag(option.dest)}: {error}") from error
        return cls(**values)


assert {field.name for field in fields(Options)} == {option.dest for option in OPTIONS}


def add_to(parser: Parser) -> None:
    """Add the options to Locust's parser; its web form shows all but the thresholds."""
    for option in OPTIONS:
        default = f" (default: {option.default})" if option.default != "" else ""
        parser.add_argument(
            _flag(option.dest),
            type=option.checked,
            default=option.default,
            metavar=option.metavar,
            help=option.help + default,
        )
    share = Option("max_error_rate", 0.0, _share, "SHARE", "")
    parser.add_argument(
        "--max-error-rate",
        type=share.checked,
        metavar=share.metavar,
        help="fail, by the exit code, if more than this share of requests fails; 0 to 1 "
        "(default: if any fails)",
        include_in_web_ui=False,
    )
    milliseconds = Option("max_p99_ms", 0.0, _seconds, "MS", "")
    parser.add_argument(
        "--max-p99-ms",
        type=milliseconds.checked,
        metavar=milliseconds.metavar,
        help="fail, by the exit code, if the 99th percentile of all response times is above this",
        include_in_web_ui=False,
    )


def protocols(host: str | None, named: Mapping[str, bool]) -> list[str]:
    """Choose what is spoken: by the users that were named, or else by the host.

    `named` says of each protocol whether its user class was asked for.

    Raises:
        ValueError: the host is no URL of a server, or none for a protocol that was asked for.
    """
    chosen = [protocol for protocol, asked in named.items() if asked]
    if not chosen:
        return [Endpoint.parse(host or DEFAULT_HOST).protocol]
    for protocol in chosen:
        endpoint(host, protocol)
    return chosen


def endpoint(host: str | None, protocol: str) -> Endpoint:
    """Read the host for a protocol, whose own port on this machine it is without one.

    Raises:
        ValueError: the host is no URL of a server of that protocol.
    """
    return Endpoint.parse(host or "localhost", "grpc" if protocol == "grpc" else "http")


def _flag(dest: str) -> str:
    return "--" + dest.replace("_", "-")
