"""The command `python -m client.classify`, or `triton-classify` if installed."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from . import (
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
from ._arguments import header, parser
from ._output import FORMATS, Write, write_models
from ._summary import Summary

EXIT_SOME_FAILED = 1
EXIT_INVALID_USAGE = 2
EXIT_UNAVAILABLE = 3
EXIT_INTERRUPTED = 130  # as shells report SIGINT
EXIT_BROKEN_PIPE = 141  # ... and SIGPIPE

MIN_PROGRESS_IMAGES = 4


def main(arguments: list[str] | None = None) -> int:
    """Classify and print; each error is one line on standard error."""
    options = parser().parse_args(arguments)
    # Flush each line to a pipe, and escape file names that are not valid UTF-8.
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    if options.verbose:
        logging.basicConfig(format="%(message)s")
        logging.getLogger(__package__).setLevel(logging.INFO)
    try:
        classifier = _classifier(options)
    except ValueError as error:
        return _fail(str(error), EXIT_INVALID_USAGE)
    with classifier:
        try:
            return _run(classifier, options)
        except ClientError as error:
            return _fail_with(classifier, error)
        except KeyboardInterrupt:
            return _fail("interrupted", EXIT_INTERRUPTED)
        except BrokenPipeError:
            # Otherwise Python reports the error again when it flushes at exit.
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
        headers=dict(map(header, options.header)),
        compression=options.compression,
        shared_memory=options.shared_memory,
        admin_key=_admin_key(options.admin_key_file),
    )


def _admin_key(file: str | None) -> str | None:
    try:
        return Path(file).read_text("utf-8").strip() if file else None
    except (OSError, UnicodeError) as error:
        raise ValueError(f"cannot read the key in {file}: {error}") from error


def _run(classifier: Classifier, options: argparse.Namespace) -> int:
    if options.wait:
        classifier.wait_until_ready(options.wait)
    if options.list_models:
        write_models(classifier.models(), options.output)
        return 0
    if not options.images:
        _log(f"no image given: classifying the sample photograph {SAMPLE.name}")
    sources = list(_sources(options.images or [str(SAMPLE)], recursive=options.recursive))
    summary = Summary(len(sources))
    try:
        with _progress(len(sources)) as progress, FORMATS[options.output]() as write:
            results = classifier.stream(
                sources, concurrency=options.concurrency, batch_size=options.batch_size
            )
            for result in progress.track(results, total=len(sources)):
                _stop_if_all_fail(classifier, result)
                _report(result, write, options.threshold)
                summary.add(result)
    finally:
        _log(str(summary))
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
        disable=total < MIN_PROGRESS_IMAGES or not console.is_terminal,
    )


def _report(result: Classification, write: Write, threshold: float) -> None:
    likely = tuple(each for each in result.predictions if each.probability >= threshold)
    write(replace(result, predictions=likely))
    if result.error:
        _log(f"error: {result.source}: {_describe(result.error)}")


def _stop_if_all_fail(classifier: Classifier, result: Classification) -> None:
    """Raise an error that all later images would have too."""
    error = result.error
    if isinstance(error, InvalidImage):
        return
    if isinstance(error, InvalidRequest | ModelNotFound | ModelNotReady | AccessDenied):
        raise error
    if isinstance(error, ServerUnavailable) and not classifier.is_live():
        raise error


def _fail_with(classifier: Classifier, error: ClientError) -> int:
    message = _describe(error)
    if isinstance(error, ModelNotFound | ModelNotReady):
        return _fail(f"{message}; {_available(classifier)}", EXIT_INVALID_USAGE)
    if isinstance(error, AccessDenied):
        return _fail(
            f"{message}; give a token or key with --header or --admin-key-file", EXIT_INVALID_USAGE
        )
    if isinstance(error, InvalidRequest):
        return _fail(message, EXIT_INVALID_USAGE)
    is_down = isinstance(error, ServerUnavailable)
    return _fail(message, EXIT_UNAVAILABLE if is_down else EXIT_SOME_FAILED)


def _available(classifier: Classifier) -> str:
    try:
        models = classifier.models()
    except ClientError:
        return "the server does not list its models"
    ready = [model.name for model in models if model.ready]
    return f"the server has: {', '.join(ready) or 'none'}"


def _describe(error: ClientError) -> str:
    first_line = str(error).partition("\n")[0]
    return f"{first_line} (request {error.request_id})" if error.request_id else first_line


def _fail(message: str, exit_code: int) -> int:
    _log(f"error: {message}")
    return exit_code


def _log(message: str) -> None:
    print(message, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
