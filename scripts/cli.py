"""What all commands share: the parser and the reporting of errors."""

import argparse
import logging
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from scripts.errors import UserError

DEFAULT_REPOSITORY = Path("model_repository")
INTERRUPTED = 130  # what a shell reports for a Ctrl-C


def parser(command: str, description: str, *, examples: str) -> argparse.ArgumentParser:
    """Return a parser for `python -m COMMAND` whose help ends with examples."""
    return argparse.ArgumentParser(
        prog=f"python -m {command}",
        description=textwrap.fill(description, 80),
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; expected errors become one line and exit code 1."""
    logging.addLevelName(logging.WARNING, "warning")  # as the line of an error
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    # Service managers send SIGTERM and a closing terminal sends SIGHUP. Both clean up as Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, signal.default_int_handler)
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except MemoryError as error:
        print(f"error: not enough memory; {error}".rstrip("; "), file=sys.stderr)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"error: {reason}", file=sys.stderr)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 1
