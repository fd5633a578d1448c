"""Which protocol a URL stands for."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

Protocol = Literal["grpc", "http"]

DEFAULT_PORTS = {"http": 8000, "grpc": 8001}  # Triton's


@dataclass(frozen=True)
class Endpoint:
    """A server's address, as `host:port`, and the protocol spoken there."""

    protocol: Protocol
    address: str

    @classmethod
    def parse(cls, url: str, protocol: Protocol | None = None) -> "Endpoint":
        """Read `localhost`, `localhost:8001`, `grpc://localhost:8001` or `http://localhost:8000`.

        Without a scheme port 8000 means HTTP and any other gRPC, unless `protocol` is given.

        Raises:
            ValueError: it is no such URL, or says otherwise than `protocol`.
        """
        scheme, _, rest = url.rpartition("://")
        host, port = _host_and_port(rest)
        if scheme not in {"", "http", "grpc"} or not host:
            raise ValueError(f"{url!r} is no URL of a server; write one like localhost:8001")
        if scheme and protocol and scheme != protocol:
            raise ValueError(f"{url!r} does not go with protocol {protocol}")
        guessed: Protocol = "http" if "http" in (scheme, protocol) else "grpc"
        if not scheme and not protocol and port == DEFAULT_PORTS["http"]:
            guessed = "http"
        return cls(guessed, f"{host}:{port or DEFAULT_PORTS[guessed]}")

    @property
    def is_this_machine(self) -> bool:
        """Whether the address never leaves this machine."""
        host = self.address.rpartition(":")[0].strip("[]")
        return host in {"localhost", "::1"} or host.startswith("127.")


def _host_and_port(rest: str) -> tuple[str, int | None]:
    """Split `localhost:8001` or `[::1]:8001`; no host means that it is neither."""
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "", None
    if parts.path.strip("/"):
        return "", None
    return (f"[{host}]" if ":" in host else host), port
