"""What the commands share: how they read options and how they fail."""

import argparse
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from scripts.embedded import ServerError
from scripts.repository.errors import BuildError

DEFAULT_REPOSITORY = Path("model_repository")
MAX_PORT = 65_535
INTERRUPTED = 130  # what a shell reports for a Ctrl-C


def parser(command: str, description: str, *, examples: str) -> argparse.ArgumentParser:
    """Make a parser for `python -m COMMAND` whose help ends in examples."""
    return argparse.ArgumentParser(
        prog=f"python -m {command}",
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def port(text: str) -> int:
    """Read a port number, for argparse."""
    number = int(text)
    if not 1 <= number <= MAX_PORT:
        raise argparse.ArgumentTypeError(f"{number} is no port; give one from 1 to {MAX_PORT}")
    return number


def count(text: str) -> int:
    """Read a number of things, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is none; give a number from 1")
    return number


def run(command: Callable[[], int]) -> int:
    """Run a command; what the user can mend becomes one line and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    # A service manager's way to end a process, and a closing terminal's, are a Ctrl-C like any
    # other: what was begun is put away.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    try:
        return command()
    except (BuildError, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"error: {said}", file=sys.stderr)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 1
