"""`python -m client.classify`: what a Triton server sees in images."""

import argparse
import sys
import time

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client import (
    SAMPLE,
    Classification,
    Classifier,
    ClientError,
    InvalidImage,
    ModelNotFound,
    ServerUnavailable,
    Source,
    expand,
)
from client._classifier import DEFAULT_MODEL, DEFAULT_TIMEOUT, DEFAULT_TOP_K

DEFAULT_URL = "localhost:8001"

EXIT_SOME_FAILED = 1
EXIT_WRONG_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130  # what a shell reports for a Ctrl-C

EXAMPLES = """\
examples:
  python -m client.classify
  python -m client.classify cat.jpg dog.png --model mobilenetv2 --top-k 3
  python -m client.classify photos 'more/*.png' --recursive
  python -m client.classify cat.jpg --url http://localhost:8000
  curl https://example.com/cat.jpg | python -m client.classify -

exit codes:
  0 all is well, 1 an image or the server failed, 2 wrong usage or no such model,
  3 no server there
"""


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m client.classify",
        description="Classify images with a model on a Triton server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="files, folders, patterns, URLs, or - for standard input (default: a cat)",
    )
    parser.add_argument("--recursive", action="store_true", help="look into the folders below, too")
    parser.add_argument(
        "--url",
        default=DEFAULT_URL,
        help="localhost:8001, grpc://host:8001 or http://host:8000 (default: %(default)s)",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="default: %(default)s")
    parser.add_argument(
        "--top-k", type=int, default=DEFAULT_TOP_K, metavar="K", help="default: %(default)s"
    )
    parser.add_argument(
        "--protocol", choices=["grpc", "http"], help="default: http at http:// and port 8000"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="for each request (default: %(default)s)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Classify and print; errors become a line each and an exit code."""
    options = parser().parse_args(arguments)
    try:
        classifier = Classifier(
            options.url,
            model=options.model,
            top_k=options.top_k,
            protocol=options.protocol,
            timeout=options.timeout,
        )
    except ValueError as error:
        return _fail(str(error), EXIT_WRONG_USAGE)
    with classifier:
        try:
            return _classify(classifier, options.images, recursive=options.recursive)
        except ModelNotFound as error:
            return _fail(f"{error}; {_what_there_is(classifier)}", EXIT_WRONG_USAGE)
        except ServerUnavailable as error:
            return _fail(str(error), EXIT_UNREACHABLE)
        except ClientError as error:
            return _fail(str(error), EXIT_SOME_FAILED)
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED


def _classify(classifier: Classifier, images: list[str], *, recursive: bool) -> int:
    console = Console(highlight=False)
    if not images:
        console.print(f"no image given: classifying the sample photograph {SAMPLE.name}")
    exit_code = 0
    for image in images or [str(SAMPLE)]:
        sources = _sources_of(image, recursive=recursive)
        if not sources:
            exit_code = _fail(f"{image}: there is no image", EXIT_SOME_FAILED)
        for source in sources:
            exit_code = _classify_one(console, classifier, source) or exit_code
    return exit_code


def _sources_of(image: str, *, recursive: bool) -> list[Source]:
    return [sys.stdin.buffer] if image == "-" else [*expand([image], recursive=recursive)]


def _classify_one(console: Console, classifier: Classifier, source: Source) -> int:
    start = time.perf_counter()
    try:
        result = classifier.image(source)
    except InvalidImage as error:
        return _fail(f"{error.source}: {error}", EXIT_SOME_FAILED)
    milliseconds = (time.perf_counter() - start) * 1000
    heading = f"{result.source} by {result.model}, {milliseconds:.1f} ms"
    console.print(escape(heading), style="bold", soft_wrap=True)
    console.print(_table(result))
    return 0


def _table(result: Classification) -> Table:
    table = Table("class", "probability", "label", box=box.SIMPLE_HEAD)
    for column in table.columns[:2]:
        column.justify = "right"
    for prediction in result.predictions:
        table.add_row(
            str(prediction.class_id), f"{prediction.probability:.2%}", escape(prediction.label)
        )
    return table


def _what_there_is(classifier: Classifier) -> str:
    try:
        models = classifier.models()
    except ClientError:
        return "what the server has it does not say"
    return f"the server has: {', '.join(models) or 'none'}"


def _fail(message: str, exit_code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
