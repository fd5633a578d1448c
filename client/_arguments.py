"""The arguments of the command."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from . import __version__
from ._classifier import DEFAULT_CONCURRENCY, DEFAULT_MODEL
from ._endpoint import Protocol
from ._options import Compression, RequestOptions
from ._output import FORMATS

INSTALLED_COMMAND = "triton-classify"
DEFAULT_URL = "localhost:8001"
EXAMPLES = """\
examples:
  %(prog)s
  %(prog)s cat.jpg dog.png --model mobilenetv2 --top-k 3
  %(prog)s photos 'more/*.png' --recursive --output csv > labels.csv
  %(prog)s photos --output jsonl | jq -r '.predictions[0].label'
  %(prog)s photos --concurrency 32 --retries 10
  %(prog)s photos --url triton-1:8001,triton-2:8001
  %(prog)s cat.jpg --url grpcs://triton:8001 --ca ca.pem
  %(prog)s cat.jpg --url https://triton --header 'Authorization: Bearer TOKEN'
  curl https://example.com/cat.jpg | %(prog)s -
  %(prog)s --list-models

environment variables:
  TRITON_URL, TRITON_MODEL and TRITON_HEADERS (one per line) set the defaults of
  --url, --model and --header

exit codes:
  0 success, 1 some images failed, 2 invalid usage, unknown model or access denied,
  3 no server responds
"""


def parser() -> argparse.ArgumentParser:
    """Describe the command line, in the name under which it was started."""
    is_installed = Path(sys.argv[0]).name == INSTALLED_COMMAND
    parser = argparse.ArgumentParser(
        prog=INSTALLED_COMMAND if is_installed else f"python -m {__package__}.classify",
        description="Classify images with a model on Triton Inference Server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="files, folders, patterns, URLs, or - for standard input (default: a sample photo)",
    )
    parser.add_argument("--recursive", action="store_true", help="include subfolders")
    parser.add_argument("--version", action="version", version=f"triton-imagenet {__version__}")
    _add_server(parser.add_argument_group("server"))
    _add_requests(parser.add_argument_group("requests"))
    _add_results(parser.add_argument_group("results"))
    return parser


def header(line: str) -> tuple[str, str]:
    """Split `NAME: VALUE`.

    Raises:
        ValueError: the colon is missing.
    """
    name, colon, value = line.partition(":")
    if not colon:
        raise ValueError(
            f"invalid header {line!r}: use a form such as 'Authorization: Bearer TOKEN'"
        )
    return name.strip(), value.strip()


def count(text: str) -> int:
    """Parse a whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def seconds(text: str) -> float:
    """Parse a duration greater than 0."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError("must be greater than 0")
    return number


def _add_server(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--url",
        default=os.environ.get("TRITON_URL", DEFAULT_URL),
        help="host:port, or a URL with the scheme grpc, grpcs, http or https; separate several "
        "with commas (default: %(default)s)",
    )
    add(
        "--protocol",
        choices=get_args(Protocol),
        help="protocol of a URL without a scheme (default: http for port 8000, else grpc)",
    )
    add(
        "--header",
        action="append",
        default=os.environ.get("TRITON_HEADERS", "").splitlines(),
        metavar="'NAME: VALUE'",
        help="header of every request; can be repeated",
    )
    add(
        "--admin-key-file",
        metavar="FILE",
        help="administrator's key, which the server may require for --shared-memory",
    )
    add("--ca", metavar="FILE", help="CA bundle used to verify the server (PEM)")
    add("--cert", metavar="FILE", help="client certificate (PEM)")
    add("--key", metavar="FILE", help="private key of the client certificate (PEM)")
    add("--wait", type=seconds, metavar="SECONDS", help="wait up to SECONDS for readiness")
    add("--list-models", action="store_true", help="list the server's models and exit")


def _add_requests(group: argparse._ArgumentGroup) -> None:
    model = os.environ.get("TRITON_MODEL", DEFAULT_MODEL)
    group.add_argument("--model", default=model, help="name of the model (default: %(default)s)")
    options = RequestOptions()
    retries = "retries when no server accepts the request or responds in time"
    _add_number(group, "--concurrency", count, "requests in flight", DEFAULT_CONCURRENCY)
    _add_number(group, "--batch-size", count, "images per request", 1)
    _add_number(group, "--timeout", seconds, "deadline of each attempt", options.timeout)
    _add_number(group, "--connect-timeout", seconds, "connection timeout", options.connect_timeout)
    _add_number(group, "--retries", int, retries, options.retries)
    compressions = get_args(Compression)
    group.add_argument(
        "--compression", choices=compressions, help="compress requests and responses"
    )
    text = "pass images to a server on this machine in shared memory"
    group.add_argument("--shared-memory", action="store_true", help=text)


def _add_results(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    classes = "classes per image (default: the server's: 5, or all if the model has fewer)"
    add("--top-k", type=int, metavar="N", help=classes)
    omitted = "omit classes with a probability below P, from 0 to 1"
    add("--threshold", type=float, default=0.0, metavar="P", help=omitted)
    add("--output", choices=FORMATS, default="table", help="output format (default: %(default)s)")
    add("--verbose", action="store_true", help="log retries to standard error")


def _add_number(
    group: argparse._ArgumentGroup,
    name: str,
    parse: Callable[[str], float],
    text: str,
    default: float,
) -> None:
    metavar = "SECONDS" if parse is seconds else "N"
    text += " (default: %(default)s)"
    group.add_argument(name, type=parse, metavar=metavar, default=default, help=text)
