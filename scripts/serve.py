"""`python -m scripts.serve`: serve a model repository with the Triton that pip installs."""

import argparse
import sys
from pathlib import Path

from scripts import arguments, cli
from scripts.embedded import EmbeddedServer, Endpoints, supervise

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
        "Serve a model repository with the Triton that pip installs, until Ctrl-C. A server that "
        "crashes is restarted on the same ports.",
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
        "--models", nargs="+", default=[], metavar="NAME", help="models to load (default: all)"
    )
    endpoints = Endpoints()
    parser.add_argument(
        "--address",
        default=endpoints.address,
        help="address to listen on; 0.0.0.0 for all networks (default: %(default)s, this machine "
        "only)",
    )
    for protocol, port in endpoints.ports.items():
        parser.add_argument(
            f"--{protocol}-port",
            type=arguments.port,
            default=port,
            metavar="PORT",
            help="default: %(default)s",
        )
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="Triton's log (default: a temporary file)"
    )
    parser.add_argument(
        "arguments", nargs="*", metavar="-- ARGUMENTS", help="further options for tritonserver"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Parse the options and serve."""
    options = parser().parse_args(arguments)
    return cli.run(lambda: serve(options))


def serve(options: argparse.Namespace) -> int:
    """Start the server, print where it listens, and restart it after a crash, until Ctrl-C."""
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
            print(_addresses(server), flush=True)
            supervise(server, report=_report)
    except KeyboardInterrupt:
        print("stopped")
    return 0


def _addresses(server: EmbeddedServer) -> str:
    at = server.endpoints
    return (
        f"ready: gRPC {at.host}:{at.grpc}, HTTP http://{at.host}:{at.http}, "
        f"metrics http://{at.host}:{at.metrics}/metrics\n"
        f"log: {server.log}; press Ctrl-C to stop"
    )


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
