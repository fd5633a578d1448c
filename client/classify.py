"""`python -m client.classify`: what a Triton server sees in images."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from client import (
    SAMPLE,
    AccessDenied,
    Classification,
    Classifier,
    ClientError,
    ImageFile,
    InvalidImage,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    ServerUnavailable,
    Source,
    Tls,
    expand,
)
from client._classifier import DEFAULT_CONCURRENCY, DEFAULT_MODEL, DEFAULT_TOP_K
from client._endpoint import Protocol
from client._output import FORMATS, Writer, write_models
from client._settings import Compression, Settings
from client._summary import Summary

DEFAULT_URL = "localhost:8001"

EXIT_SOME_FAILED = 1
EXIT_WRONG_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130  # what a shell reports for a Ctrl-C
EXIT_BROKEN_PIPE = 141  # ... and for a reader that went away, such as head

A_FEW = 3  # images that need no progress bar

EXAMPLES = """\
examples:
  python -m client.classify
  python -m client.classify cat.jpg dog.png --model mobilenetv2 --top-k 3
  python -m client.classify photos 'more/*.png' --recursive --output csv > labels.csv
  python -m client.classify photos --output jsonl | jq -r '.predictions[0].label'
  python -m client.classify photos --concurrency 32 --retries 10
  python -m client.classify photos --url triton-1:8001,triton-2:8001
  python -m client.classify cat.jpg --url grpcs://triton:8001 --ca ca.pem
  python -m client.classify cat.jpg --url https://triton --header 'Authorization: Bearer TOKEN'
  curl https://example.com/cat.jpg | python -m client.classify -
  python -m client.classify --list-models

environment:
  TRITON_URL, TRITON_MODEL, TRITON_HEADERS (one a line) stand for --url, --model, --header

exit codes:
  0 all is well, 1 some images failed, 2 wrong usage, no such model or no access,
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
    _add_server(parser.add_argument_group("server"))
    _add_requests(parser.add_argument_group("requests"))
    _add_results(parser.add_argument_group("results"))
    return parser


def _add_server(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--url",
        default=os.environ.get("TRITON_URL", DEFAULT_URL),
        help="host:port, or a URL of grpc, grpcs, http or https; several with commas between them "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--protocol",
        choices=get_args(Protocol),
        help="where the URL does not say (default: http at port 8000)",
    )
    group.add_argument(
        "--header",
        action="append",
        default=os.environ.get("TRITON_HEADERS", "").splitlines(),
        metavar="'NAME: VALUE'",
        help="goes with every request; may be given again",
    )
    group.add_argument("--ca", metavar="FILE", help="PEM of who signs the server's certificate")
    group.add_argument("--cert", metavar="FILE", help="PEM of this client's own certificate")
    group.add_argument("--key", metavar="FILE", help="PEM of its key")
    group.add_argument(
        "--wait", type=_seconds, metavar="SECONDS", help="until the model is ready, at most"
    )
    group.add_argument(
        "--list-models", action="store_true", help="list what the server has, and end"
    )


def _add_requests(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        default=os.environ.get("TRITON_MODEL", DEFAULT_MODEL),
        help="default: %(default)s",
    )
    group.add_argument(
        "--concurrency",
        type=_count,
        default=DEFAULT_CONCURRENCY,
        metavar="N",
        help="requests under way at a time (default: %(default)s)",
    )
    group.add_argument(
        "--batch-size",
        type=_count,
        default=1,
        metavar="N",
        help="images in a request (default: %(default)s)",
    )
    group.add_argument(
        "--timeout",
        type=_seconds,
        default=Settings.timeout,
        metavar="SECONDS",
        help="for each try of a request (default: %(default)s)",
    )
    group.add_argument(
        "--connect-timeout",
        type=_seconds,
        default=Settings.connect_timeout,
        metavar="SECONDS",
        help="for a server's first sign of life (default: %(default)s)",
    )
    group.add_argument(
        "--retries",
        type=int,
        default=Settings.retries,
        metavar="N",
        help="when no server takes the request, or answers in time (default: %(default)s)",
    )
    group.add_argument(
        "--compression", choices=get_args(Compression), help="of requests and answers"
    )
    group.add_argument(
        "--shared-memory",
        action="store_true",
        help="hand the images to a server on this machine without a socket",
    )


def _add_results(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--top-k",
        type=int,
        default=DEFAULT_TOP_K,
        metavar="K",
        help="classes for each image (default: %(default)s)",
    )
    group.add_argument(
        "--threshold",
        type=float,
        default=0.0,
        metavar="P",
        help="leave out what is less probable, 0 to 1",
    )
    group.add_argument("--output", choices=FORMATS, default="table", help="default: %(default)s")
    group.add_argument("--verbose", action="store_true", help="tell of retries on standard error")


def main(arguments: list[str] | None = None) -> int:
    """Classify and print; errors become a line each and an exit code."""
    options = parser().parse_args(arguments)
    # A pipe gets each line when it is made, and a name of any bytes breaks nothing.
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    if options.verbose:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("client").setLevel(logging.INFO)
    try:
        classifier = _classifier(options)
    except ValueError as error:
        return _fail(str(error), EXIT_WRONG_USAGE)
    with classifier:
        try:
            return _run(classifier, options)
        except ClientError as error:
            return _give_up(classifier, error)
        except KeyboardInterrupt:
            return _fail("interrupted", EXIT_INTERRUPTED)
        except BrokenPipeError:
            # Or Python complains of it again at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_BROKEN_PIPE


def _classifier(options: argparse.Namespace) -> Classifier:
    certificates = (options.ca, options.cert, options.key)
    return Classifier(
        options.url.split(","),
        model=options.model,
        top_k=options.top_k,
        protocol=options.protocol,
        timeout=options.timeout,
        connect_timeout=options.connect_timeout,
        retries=options.retries,
        tls=Tls(*certificates) if any(certificates) else None,
        headers=dict(map(_header, options.header)),
        compression=options.compression,
        shared_memory=options.shared_memory,
    )


def _run(classifier: Classifier, options: argparse.Namespace) -> int:
    if options.wait:
        classifier.wait_until_ready(options.wait)
    if options.list_models:
        write_models(classifier.models(), options.output)
        return 0
    if not options.images:
        _say(f"no image given: classifying the sample photograph {SAMPLE.name}")
    sources = list(_sources(options.images or [str(SAMPLE)], recursive=options.recursive))
    summary = Summary(len(sources))
    try:
        with _progress(len(sources)) as progress, closing(FORMATS[options.output]()) as writer:
            results = classifier.stream(
                sources, concurrency=options.concurrency, batch_size=options.batch_size
            )
            for result in progress.track(results, total=len(sources)):
                _stop_if_hopeless(classifier, result)
                _report(result, writer, options.threshold)
                summary.add(result)
    finally:
        _say(str(summary))
    return EXIT_SOME_FAILED if summary.failed else 0


def _sources(images: Sequence[str], *, recursive: bool) -> Iterator[Source]:
    for image in images:
        if image == "-":
            yield ImageFile("-", sys.stdin.buffer.read())
        else:
            yield from expand([image], recursive=recursive)


def _progress(total: int) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("classifying"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
        disable=total <= A_FEW or not console.is_terminal,
    )


def _report(result: Classification, writer: Writer, threshold: float) -> None:
    likely = tuple(each for each in result.predictions if each.probability >= threshold)
    writer.write(replace(result, predictions=likely))
    if result.error:
        _say(f"error: {result.source}: {_describe(result.error)}")


def _stop_if_hopeless(classifier: Classifier, result: Classification) -> None:
    """Raise an error that all images after this one would have, too."""
    error = result.error
    if isinstance(error, InvalidImage):
        return
    if isinstance(error, InvalidRequest | ModelNotFound | ModelNotReady | AccessDenied):
        raise error
    if isinstance(error, ServerUnavailable) and not classifier.is_live():
        raise error


def _give_up(classifier: Classifier, error: ClientError) -> int:
    if isinstance(error, ModelNotFound | ModelNotReady):
        return _fail(f"{_describe(error)}; {_what_there_is(classifier)}", EXIT_WRONG_USAGE)
    if isinstance(error, AccessDenied):
        hint = "give a token or key by --header"
        return _fail(f"{_describe(error)}; {hint}", EXIT_WRONG_USAGE)
    if isinstance(error, InvalidRequest):
        return _fail(_describe(error), EXIT_WRONG_USAGE)
    is_there = not isinstance(error, ServerUnavailable)
    return _fail(_describe(error), EXIT_SOME_FAILED if is_there else EXIT_UNREACHABLE)


def _what_there_is(classifier: Classifier) -> str:
    try:
        models = classifier.models()
    except ClientError:
        return "what the server has it does not say"
    ready = [model.name for model in models if model.ready]
    return f"the server has: {', '.join(ready) or 'none'}"


def _describe(error: ClientError) -> str:
    first_line = str(error).partition("\n")[0]
    return f"{first_line} (request {error.request_id})" if error.request_id else first_line


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise ValueError(f"{line!r} is no header; write one like 'Authorization: Bearer TOKEN'")
    return name.strip(), value.strip()


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError
    return count


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise ValueError
    return seconds


def _fail(message: str, exit_code: int) -> int:
    _say(f"error: {message}")
    return exit_code


def _say(message: str) -> None:
    print(message, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
