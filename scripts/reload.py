"""`python -m scripts.reload`: let a running `scripts.serve` load its repository again."""

import argparse
import sys

from scripts import arguments, cli
from scripts.embedded import Endpoints, ServerError, control

EXAMPLES = """\
  python -m scripts.build_repository --onnx birds.onnx --name birds && python -m scripts.reload
  python -m scripts.reload --http-port 9000
"""


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = cli.parser(
        "scripts.reload",
        "Let the scripts.serve that runs on this machine load its model repository again. Clients "
        "notice nothing: a second Triton starts beside the one that serves, classifies an image "
        "with each model, and gets all new connections; then the first one finishes its open "
        "connections, for at most 30 s. If the new version does not load, the old one goes on.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--http-port",
        type=arguments.port,
        default=Endpoints().http,
        metavar="PORT",
        help="the server's port for HTTP (default: %(default)s)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Parse the options and reload."""
    options = parser().parse_args(arguments)
    return cli.run(lambda: reload(options.http_port))


def reload(port: int) -> int:
    """Reload, and print what serves now.

    Raises:
        ServerError: there is no server, or the new version does not load.
    """
    path = control.find(port)
    print("loading the new version; the old one goes on ...", flush=True)
    answer = control.reload(path)
    if not answer.done:
        raise ServerError(f"the old version goes on: {answer.message}")
    print(answer.message)
    return 0


if __name__ == "__main__":
    sys.exit(main())
