"""Where a server listens, and whether it is ready there."""

import ipaddress
import socket
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import requests

from scripts.embedded.installation import ServerError

LOOPBACK = "127.0.0.1"
READY_SECONDS = 5  # timeout of one readiness request


@dataclass(frozen=True)
class Endpoints:
    """The addresses and the three ports of a server; the default ports are Triton's.

    Attributes:
        address: the address to listen on; 0.0.0.0 for all networks.
        http: the port for HTTP.
        grpc: the port for gRPC.
        metrics: the port for metrics.
        http_address: the address for HTTP; `address` by default.
        metrics_address: the address for metrics; `address` by default, but only within this
            machine.
    """

    address: str = LOOPBACK
    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002
    http_address: str | None = None
    metrics_address: str | None = None

    @classmethod
    def free(cls, address: str = LOOPBACK) -> "Endpoints":
        """Choose three ports that nothing listens on."""
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for each in sockets:
                each.bind((address, 0))
            return cls(address, *(each.getsockname()[1] for each in sockets))

    @property
    def ports(self) -> dict[str, int]:
        """The port of each protocol, keyed by the protocol's name in Triton's options."""
        return {"http": self.http, "grpc": self.grpc, "metrics": self.metrics}

    @property
    def addresses(self) -> dict[str, str]:
        """The address of each protocol, keyed as `ports`."""
        local = self.address if is_loopback(self.address) else LOOPBACK
        return {
            "http": self.http_address or self.address,
            "grpc": self.address,
            "metrics": self.metrics_address or local,
        }

    def at(self, protocol: str) -> str:
        """Return HOST:PORT where a client on this machine reaches a protocol."""
        address = self.addresses[protocol]
        host = LOOPBACK if address == "0.0.0.0" else address  # noqa: S104
        return f"{host}:{self.ports[protocol]}"

    def are_ready(self) -> bool:
        """Return whether the server and all its models are ready."""
        with requests.Session() as session, suppress(requests.RequestException):
            session.trust_env = False  # never send a local request through a proxy
            url = f"http://{self.at('http')}/v2/health/ready"
            return session.get(url, timeout=READY_SECONDS).ok
        return False

    def check_free(self) -> None:
        """Try to listen on each port.

        Raises:
            ServerError: a port is in use, or the address does not belong to this machine.
        """
        for protocol, port in self.ports.items():
            address = self.addresses[protocol]
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, port))
                except OSError as error:
                    raise ServerError(
                        f"cannot listen on {address}:{port}: {error.strerror}; "
                        f"choose another with --{protocol}-port or --address"
                    ) from error


def resolve(host: str) -> str:
    """Return the IPv4 address of a host name, or an address as it is.

    Raises:
        ServerError: the name is unknown.
    """
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise ServerError(f"cannot listen on {host}: {error.strerror}") from error


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address or the one of a host name."""
    return ipaddress.ip_address(resolve(host)).is_loopback
