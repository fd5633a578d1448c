"""Where a server is and what is spoken there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

Protocol = Literal["grpc", "http"]

SCHEMES: Mapping[str, tuple[Protocol, bool]] = {
    "grpc": ("grpc", False),
    "grpcs": ("grpc", True),
    "http": ("http", False),
    "https": ("http", True),
}
DEFAULT_PORTS = {"http": 8000, "grpc": 8001}  # Triton's
SECURE_PORT = 443


@dataclass(frozen=True)
class Endpoint:
    """A server's address, as `host:port`, the protocol spoken there, and whether over TLS."""

    protocol: Protocol
    address: str
    secure: bool = False

    @classmethod
    def parse(
        cls, url: str, protocol: Protocol | None = None, *, secure: bool = False
    ) -> "Endpoint":
        """Read `localhost:8001`, or a URL that begins with grpc, grpcs, http or https.

        Without a scheme port 8000 means HTTP and any other gRPC, unless `protocol` is given, over
        TLS if `secure`. Without a port it is Triton's own, or 443 over TLS. HTTP may have a path,
        for a proxy that wants one.

        Raises:
            ValueError: it is no such URL, or says otherwise than `protocol` or `secure`.
        """
        scheme, separator, rest = url.rpartition("://")
        host, port, path = _split(rest)
        if (separator and scheme not in SCHEMES) or not host:
            raise ValueError(f"{url!r} is no URL of a server; write one like localhost:8001")
        if not scheme:
            is_http = protocol is None and port == DEFAULT_PORTS["http"]
            scheme = (protocol or ("http" if is_http else "grpc")) + ("s" if secure else "")
        spoken, over_tls = SCHEMES[scheme]
        if protocol and protocol != spoken:
            raise ValueError(f"{url!r} does not go with protocol {protocol}")
        if secure and not over_tls:
            raise ValueError(f"{url!r} does not go with TLS; write {spoken}s://{rest}")
        if path and spoken == "grpc":
            raise ValueError(f"{url!r} has a path, and gRPC knows none")
        port = port or (SECURE_PORT if over_tls else DEFAULT_PORTS[spoken])
        return cls(spoken, f"{host}:{port}{path}", over_tls)

    def __str__(self) -> str:
        return f"{self.protocol}{'s' if self.secure else ''}://{self.address}"

    @property
    def is_this_machine(self) -> bool:
        """Whether the address never leaves this machine."""
        host = urlsplit(f"//{self.address}").hostname or ""
        return host in {"localhost", "::1"} or host.startswith("127.")


def _split(rest: str) -> tuple[str, int | None, str]:
    """Split `localhost:8001/path` or `[::1]:8001`; no host means that it is neither."""
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "", None, ""
    if parts.username or parts.query or parts.fragment:
        return "", None, ""
    return (f"[{host}]" if ":" in host else host), port, parts.path.rstrip("/")
