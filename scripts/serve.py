"""`python -m scripts.serve`: the Triton that pip installs, on a model repository."""

import argparse
import sys
from pathlib import Path

from scripts import cli
from scripts.embedded import EmbeddedServer, Endpoints

EXAMPLES = """\
  python -m scripts.serve
  python -m scripts.serve --models resnet50_v1 mobilenetv2
  python -m scripts.serve --address 0.0.0.0 --http-port 9000
  python -m scripts.serve --log /dev/stderr -- --log-verbose=1
"""


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = cli.parser(
        "scripts.serve",
        "Serve a model repository with the Triton that pip installs, until Ctrl-C.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--model-repository",
        type=Path,
        default=cli.DEFAULT_REPOSITORY,
        metavar="DIR",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--models", nargs="+", default=[], metavar="NAME", help="load only these (default: all)"
    )
    endpoints = Endpoints()
    parser.add_argument(
        "--address",
        default=endpoints.address,
        help="where to listen; 0.0.0.0 for every network (default: %(default)s, this machine only)",
    )
    for protocol, port in endpoints.ports.items():
        parser.add_argument(
            f"--{protocol}-port",
            type=cli.port,
            default=port,
            metavar="PORT",
            help="default: %(default)s",
        )
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="where Triton's log goes (a temporary file)"
    )
    parser.add_argument(
        "arguments", nargs="*", metavar="-- ARGUMENTS", help="passed on to tritonserver"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop."""
    options = parser().parse_args(arguments)
    return cli.run(lambda: serve(options))


def serve(options: argparse.Namespace) -> int:
    """Start the server, say where it listens, and wait."""
    endpoints = Endpoints(
        options.address, options.http_port, options.grpc_port, options.metrics_port
    )
    server = EmbeddedServer(
        options.model_repository,
        models=options.models,
        endpoints=endpoints,
        arguments=options.arguments,
        log=options.log,
    )
    print(f"starting Triton on {options.model_repository} ...", flush=True)
    try:
        with server:
            print(_where(server), flush=True)
            server.wait()
    except KeyboardInterrupt:
        print("stopped")
    return 0


def _where(server: EmbeddedServer) -> str:
    at = server.endpoints
    return (
        f"ready: gRPC {at.host}:{at.grpc}, HTTP http://{at.host}:{at.http}, "
        f"metrics http://{at.host}:{at.metrics}/metrics\n"
        f"log: {server.log}; Ctrl-C stops it"
    )


if __name__ == "__main__":
    sys.exit(main())
