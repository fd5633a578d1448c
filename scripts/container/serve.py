"""`python3 -m scripts.container.serve`: become tritonserver, with restricted APIs."""

import argparse
import logging
import os
import sys
from pathlib import Path

from scripts.container import health
from scripts.embedded.access import Access, read_key
from scripts.embedded.gpu_memory import pool_options
from scripts.errors import UserError

MAX_GPUS = 16  # of one machine


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog="python3 -m scripts.container.serve")
    parser.add_argument(
        "--admin-key-file",
        type=Path,
        required=True,
        metavar="FILE",
        help="key for shared memory, traces, log settings and the repository API; /dev/null if "
        "nobody can use them",
    )
    parser.add_argument("--model-repository", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "command", nargs="+", metavar="-- COMMAND", help="tritonserver and its options"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Replace this process by tritonserver; return only if that fails."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    key_file: Path = options.admin_key_file
    try:
        key = None if key_file.is_char_device() else read_key(key_file)
        health.start(options.model_repository)
        executable, *own = options.command
        # Of an option that is given twice, the later one applies: the command's own.
        command = [executable, *pool_options(range(MAX_GPUS)), *own, *Access(key).options()]
        os.execvp(executable, command)  # noqa: S606 - the arguments need no shell
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        # A command that is in no folder of PATH is not named by the error.
        print(f"error: {error.filename or options.command[0]}: {error.strerror}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
