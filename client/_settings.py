"""How requests are made, wherever they go."""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

Compression = Literal["gzip", "deflate"]

# RFC 9110, 5.6.2 and 5.5, less what only some servers take.
HEADER_NAME = re.compile(r"[0-9A-Za-z_.-]+")
HEADER_VALUE = re.compile(r"[ -~]*")


@dataclass(frozen=True)
class Tls:
    """Certificates, as PEM files.

        Classifier("grpcs://triton:8001", tls=Tls(ca="ca.pem"))
        Classifier("https://triton", tls=Tls(ca="ca.pem", certificate="me.pem", key="me.key"))

    `ca` signs the server's certificate (the usual authorities unless given); `certificate` and
    `key` are this client's own, for a server that asks for them.

    Raises:
        ValueError: a file cannot be read, or is no such thing.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None

    def __post_init__(self) -> None:
        """Find out now what would be a riddle from inside a handshake."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client's certificate and its key go together; give both")
        self.context()

    def context(self) -> ssl.SSLContext:
        """Make what Python's own TLS wants."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise ValueError(f"{self.ca} holds no certificate: {error}") from error
        if self.certificate and self.key:
            try:
                context.load_cert_chain(self.certificate, self.key)
            except OSError as error:
                files = f"{self.certificate} and {self.key}"
                raise ValueError(f"{files} are no certificate and its key: {error}") from error
        return context


@dataclass(frozen=True)
class Settings:
    """What a user may choose of each request; times are in seconds.

    Raises:
        ValueError: a value makes no sense.
    """

    timeout: float = 30.0
    connect_timeout: float = 5.0
    retries: int = 3
    tls: Tls | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    compression: Compression | None = None
    shared_memory: bool = False

    def __post_init__(self) -> None:
        """Refuse what would fail later, and say less then."""
        if self.timeout <= 0 or self.connect_timeout <= 0:
            raise ValueError("a timeout is a number of seconds above 0")
        if self.retries < 0:
            raise ValueError("retries are a number from 0")
        if self.compression not in {None, *get_args(Compression)}:
            raise ValueError(f"{self.compression!r} is no compression; take gzip or deflate")
        for name, value in self.headers.items():
            if not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
                raise ValueError(f"{name!r} is no header's name, or its value holds what none may")
