"""Server URLs: parsing, default ports, and which protocol a port speaks."""

import asyncio
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
DEFAULT_PORTS: Mapping[Protocol, int] = {"http": 8000, "grpc": 8001}  # Triton's
TLS_PORT = 443

# An HTTP/2 server begins with a SETTINGS frame: type 4 in the fourth byte (RFC 9113, 4.1 and 6.5).
FRAME_TYPE = 3
SETTINGS = b"\x04"
PROBE_SECONDS = 1


@dataclass(frozen=True)
class Endpoint:
    """A server's protocol, its address (`host:port` or `host:port/path`), and if it uses TLS."""

    protocol: Protocol
    address: str
    secure: bool = False

    @classmethod
    def parse(
        cls, url: str, protocol: Protocol | None = None, *, secure: bool = False
    ) -> "Endpoint":
        """Parse `localhost:8001`, or a URL with the scheme grpc, grpcs, http or https.

        Without a scheme, `protocol` and `secure` decide; without `protocol`, port 8000 means HTTP
        and any other port gRPC. The default ports are Triton's, or 443 with TLS. An HTTP URL may
        have a path, for a server behind a proxy.

        Raises:
            ValueError: invalid URL, or its scheme contradicts `protocol` or `secure`.
        """
        scheme, separator, rest = url.rpartition("://")
        host, port, path = _split(rest)
        if (separator and scheme not in SCHEMES) or not host:
            raise ValueError(f"invalid URL {url!r}: use a form such as localhost:8001")
        if not scheme:
            is_http = protocol is None and port == DEFAULT_PORTS["http"]
            scheme = (protocol or ("http" if is_http else "grpc")) + ("s" if secure else "")
        url_protocol, url_secure = SCHEMES[scheme]
        if protocol and protocol != url_protocol:
            raise ValueError(f"URL {url!r} contradicts protocol {protocol}")
        if secure and not url_secure:
            raise ValueError(f"URL {url!r} does not use TLS: use {url_protocol}s://{rest}")
        if path and url_protocol == "grpc":
            raise ValueError(f"invalid URL {url!r}: a gRPC URL cannot have a path")
        port = port or (TLS_PORT if url_secure else DEFAULT_PORTS[url_protocol])
        return cls(url_protocol, f"{host}:{port}{path}", url_secure)

    def __str__(self) -> str:
        return f"{self.protocol}{'s' if self.secure else ''}://{self.address}"

    @property
    def is_this_machine(self) -> bool:
        """Whether the address is on this machine."""
        host = urlsplit(f"//{self.address}").hostname or ""
        return host in {"localhost", "::1"} or host.startswith("127.")


async def port_hint(endpoint: Endpoint) -> str:
    """Explain why a connection failed if the port speaks the other protocol, else return ""."""
    url = urlsplit(f"//{endpoint.address}")
    try:
        start = await asyncio.wait_for(_first_bytes(url.hostname, url.port), PROBE_SECONDS)
    except (OSError, asyncio.TimeoutError):
        return ""
    if endpoint.protocol == "grpc" and start == b"HTTP":
        hint = f"HTTP port; use http://{url.netloc} or port {DEFAULT_PORTS['grpc']}"
    elif endpoint.protocol == "http" and start[FRAME_TYPE:] == SETTINGS:
        hint = f"gRPC port; use grpc://{url.netloc} or port {DEFAULT_PORTS['http']}"
    else:
        return ""
    return f"{endpoint} is unavailable: this looks like Triton's {hint}"


async def _first_bytes(host: str | None, port: int | None) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        return await reader.read(FRAME_TYPE + 1)
    finally:
        writer.close()


def _split(rest: str) -> tuple[str, int | None, str]:
    """Split `localhost:8001/path` or `[::1]:8001`; the host is empty if `rest` is invalid."""
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "", None, ""
    if parts.username or parts.query or parts.fragment:
        return "", None, ""
    return (f"[{host}]" if ":" in host else host), port, parts.path.rstrip("/")
