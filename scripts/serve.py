"""`python -m scripts.serve`: serve a model repository with the Triton that pip installs."""

import argparse
import sys
from pathlib import Path

from scripts import arguments, cli
from scripts.embedded import Access, EmbeddedServer, Endpoints, Supervisor, Tls
from scripts.embedded.access import read_key
from scripts.embedded.endpoints import LOOPBACK, is_loopback
from scripts.errors import UserError

EXAMPLES = """\
  python -m scripts.serve
  python -m scripts.serve --models resnet50_v1 mobilenetv2
  python -m scripts.serve --gpu
  python -m scripts.serve --address 0.0.0.0 --tls-certificate server.crt --tls-key server.key
  python -m scripts.serve --log /dev/stderr -- --log-verbose=1
"""
EXPOSED = (
    "warning: other machines can reach this server; its Triton is of October 2024 and has "
    "published vulnerabilities (SECURITY.md): use the Docker image for untrusted clients"
)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = cli.parser(
        "scripts.serve",
        "Serve a model repository with the Triton that pip installs, until Ctrl-C. A server that "
        "crashes is restarted on the same ports, one that is damaged is replaced, and "
        "scripts.reload loads a new version.",
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
    parser.add_argument(
        "--gpu",
        action="store_true",
        help="run the graphs on the machine's NVIDIA GPUs (default: on its CPU)",
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
    add_access(parser)
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="refuse a repository whose files do not match its manifest (default: --verify)",
    )
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="Triton's log (default: a temporary file)"
    )
    parser.add_argument(
        "arguments", nargs="*", metavar="-- ARGUMENTS", help="further options for tritonserver"
    )
    return parser


def add_access(parser: argparse.ArgumentParser) -> None:
    """Add the options that say who may use what of the server."""
    parser.add_argument(
        "--metrics-address",
        metavar="ADDRESS",
        help="address for metrics (default: this machine only)",
    )
    parser.add_argument(
        "--admin-key-file",
        type=Path,
        metavar="FILE",
        help="key for shared memory, traces, log settings and the repository API "
        "(default: nobody can use them)",
    )
    parser.add_argument(
        "--tls-certificate",
        type=Path,
        metavar="FILE",
        help="the server's certificate (PEM), for gRPC with TLS; HTTP then listens on this machine "
        "only",
    )
    parser.add_argument(
        "--tls-key", type=Path, metavar="FILE", help="the certificate's private key (PEM)"
    )
    parser.add_argument(
        "--tls-client-ca",
        type=Path,
        metavar="FILE",
        help="accept gRPC only from clients with a certificate of this CA (PEM)",
    )


def access(options: argparse.Namespace) -> Access:
    """Return who may use what of the server.

    Raises:
        UserError: an option lacks another one, or a file is not usable.
    """
    certificate, key = options.tls_certificate, options.tls_key
    if bool(certificate) != bool(key) or (options.tls_client_ca and not certificate):
        raise UserError("TLS needs both --tls-certificate and --tls-key")
    return Access(
        read_key(options.admin_key_file) if options.admin_key_file else None,
        Tls(certificate, key, options.tls_client_ca) if certificate else None,
    )


def endpoints(options: argparse.Namespace) -> Endpoints:
    """Return where to listen; HTTP, which has no TLS in Triton, stays within this machine then."""
    return Endpoints(
        options.address,
        options.http_port,
        options.grpc_port,
        options.metrics_port,
        http_address=LOOPBACK if options.tls_certificate else None,
        metrics_address=options.metrics_address,
    )


def main(arguments: list[str] | None = None) -> int:
    """Parse the options and serve."""
    options = parser().parse_args(arguments)
    return cli.run(lambda: serve(options))


def serve(options: argparse.Namespace) -> int:
    """Start the server, print where it listens, and restart it after a crash, until Ctrl-C."""
    listening = endpoints(options)
    server = EmbeddedServer(
        options.model_repository,
        models=options.models,
        endpoints=listening,
        access=access(options),
        arguments=options.arguments,
        log=options.log,
        verify=options.verify,
        gpu=options.gpu,
    )
    print(f"starting Triton on {options.model_repository} ...", flush=True)
    try:
        with server:
            if not all(map(is_loopback, listening.addresses.values())):
                _report(EXPOSED)
            supervisor = Supervisor(server, report=_report)
            print(_addresses(server), flush=True)
            supervisor.run()
    except KeyboardInterrupt:
        print("stopped")
    return 0


def _addresses(server: EmbeddedServer) -> str:
    at = server.endpoints.at
    device = f"; graphs run on {', '.join(server.gpus)}" if server.gpus else ""
    return (
        f"ready: gRPC {at('grpc')}, HTTP http://{at('http')}, metrics http://{at('metrics')}/metrics"
        f"{device}\n"
        f"log: {server.log}; press Ctrl-C to stop"
    )


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
