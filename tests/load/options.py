"""Options of a load test, on the command line and in Locust's web form."""

from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from client._endpoint import Endpoint
from scripts import arguments
from scripts.arguments import Size

MAX_PIXELS = 100_000_000  # the server's limit
MAX_EDGE = 65_500  # the limit of JPEG
DEFAULT_HOST = "localhost:8001"


def _name(text: str) -> str:
    if not text.strip():
        raise ArgumentTypeError("must not be empty")
    return text.strip()


def _count_or_none(text: str) -> int | None:
    return arguments.count(text) if text.strip() else None


def _sizes(text: str) -> tuple[Size, ...]:
    return tuple(map(_size, text.split(",")))


def _size(text: str) -> Size:
    width, height = size = arguments.size(text)
    if not (min(size) > 0 and max(size) <= MAX_EDGE and width * height <= MAX_PIXELS):
        raise ArgumentTypeError(f"{text.strip()} is not the size of a JPEG that the server accepts")
    return size


def _steps(text: str) -> tuple[int, ...]:
    steps = arguments.counts(text) if text.strip() else ()
    if list(steps) != sorted(set(steps)):
        raise ArgumentTypeError(f"{text!r} is not ascending; write steps such as 1,2,4,8")
    return steps


@dataclass(frozen=True)
class Option:
    """One option; `read` converts its text or raises ArgumentTypeError.

    Locust passes parsed values to its web form and its workers as text, so the parser keeps text or
    numbers, and `read` is applied again where the value is used.
    """

    dest: str
    default: str | int | float | None
    read: Callable[[str], Any]
    metavar: str
    help: str
    in_form: bool = True

    @property
    def flag(self) -> str:
        """The option as written on the command line."""
        return "--" + self.dest.replace("_", "-")

    def checked(self, text: str) -> str | int | float:
        """Validate the text for argparse and return what the parser keeps."""
        value = self.read(text)
        return value if isinstance(value, int | float) else text


def _option(*settings: Any) -> Any:
    return field(metadata={"settings": settings})


@dataclass(frozen=True)
class Options:
    """What to send. Sizes are (width, height); a `top_k` of None is the server's default."""

    model: str = _option("resnet50_v1", _name, "NAME", "classifier to load")
    sizes: tuple[Size, ...] = _option(
        "320x240,500x375,1280x960", _sizes, "WxH,...", "sizes of the JPEGs in pixels, sent in turn"
    )
    batch_size: int = _option(1, arguments.count, "N", "images per request")
    top_k: int | None = _option(
        "", _count_or_none, "K", "classes per image (default: the server's)"
    )
    broken: float = _option(0.0, arguments.share, "SHARE", "share of broken requests, 0 to 1")
    timeout: float = _option(30.0, arguments.seconds, "SECONDS", "deadline of each request")
    steps: tuple[int, ...] = _option(
        "", _steps, "N,...", "numbers of users such as 1,2,4,8, instead of -u, -r and -t"
    )
    step_seconds: float = _option(15.0, arguments.seconds, "SECONDS", "measured time of each step")

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> "Options":
        """Read parsed options, or the fields of a form.

        Raises:
            ValueError: names the option that is invalid and says why.
        """
        values = {}
        for option in OPTIONS:
            try:
                values[option.dest] = option.read(str(given.get(option.dest, option.default)))
            except ArgumentTypeError as error:
                raise ValueError(f"{option.flag}: {error}") from error
        return cls(**values)


OPTIONS = [Option(each.name, *each.metadata["settings"]) for each in fields(Options)]
ERROR_RATE = "exit with code 1 if a larger share of requests fails, 0 to 1 (default: if any fails)"
P99 = "exit with code 1 if the 99th percentile of all response times is higher"
THRESHOLDS = (
    Option("max_error_rate", None, arguments.share, "SHARE", ERROR_RATE, in_form=False),
    Option("max_p99_ms", None, arguments.seconds, "MS", P99, in_form=False),
)


def add_to(parser: Any) -> None:
    """Add the options to Locust's parser; its web form shows all but the thresholds."""
    for option in (*OPTIONS, *THRESHOLDS):
        default = "" if option.default in {"", None} else f" (default: {option.default})"
        parser.add_argument(
            option.flag,
            type=option.checked,
            default=option.default,
            metavar=option.metavar,
            help=option.help + default,
            include_in_web_ui=option.in_form,
        )


def protocols(host: str | None, named: Mapping[str, bool]) -> list[str]:
    """Return the protocols of the named user classes, or else of the host.

    `named` tells for each protocol whether its user class was named.

    Raises:
        ValueError: the host is not a valid URL, or not one for a named user class.
    """
    chosen = [protocol for protocol, is_named in named.items() if is_named]
    for protocol in chosen:
        endpoint(host, protocol)
    return chosen or [Endpoint.parse(host or DEFAULT_HOST).protocol]


def endpoint(host: str | None, protocol: str) -> Endpoint:
    """Return the host, by default this machine, as an endpoint; raises ValueError if invalid."""
    return Endpoint.parse(host or "localhost", "grpc" if protocol == "grpc" else "http")
