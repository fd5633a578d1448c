"""Options that hold for every request of a classifier."""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

Headers: TypeAlias = Mapping[str, str]
Compression = Literal["gzip", "deflate"]

# RFC 9110, 5.6.2 and 5.5, without the characters that only some servers accept.
HEADER_NAME = re.compile(r"[0-9A-Za-z_.-]+")
HEADER_VALUE = re.compile(r"[ -~]*")


def normalized(headers: Headers) -> Headers:
    """Return headers with names in lower case, as HTTP/2 requires; HTTP/1.1 ignores the case.

    Raises:
        ValueError: invalid header.
    """
    for name, value in headers.items():
        if not HEADER_NAME.fullmatch(name):
            raise ValueError(f"invalid header name {name!r}")
        if not HEADER_VALUE.fullmatch(value):
            raise ValueError(f"invalid value of header {name!r}: use printable ASCII")
    return {name.lower(): value for name, value in headers.items()}


@dataclass(frozen=True)
class Tls:
    """Certificates, as PEM files.

        Classifier("grpcs://triton:8001", tls=Tls(ca="ca.pem"))
        Classifier("https://triton", tls=Tls(ca="ca.pem", certificate="me.pem", key="me.key"))

    `ca` is the CA bundle used to verify the server (default: the system's). `certificate` and
    `key` are the client certificate and its private key, for mutual TLS.

    Raises:
        ValueError: a file cannot be read or is invalid.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None

    def __post_init__(self) -> None:
        """Validate the files here, because the errors of a failed handshake are unclear."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client certificate needs its private key: give both")
        self.context()

    def context(self) -> ssl.SSLContext:
        """Return a context for Python's `ssl` module."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise ValueError(f"{self.ca} is not a valid CA bundle: {error}") from error
        if self.certificate and self.key:
            try:
                context.load_cert_chain(self.certificate, self.key)
            except OSError as error:
                files = f"{self.certificate} and {self.key}"
                raise ValueError(f"{files} are not a certificate and its key: {error}") from error
        return context


@dataclass(frozen=True)
class RequestOptions:
    """Options of every request; times are in seconds.

    Raises:
        ValueError: invalid value.
    """

    timeout: float = 30.0
    connect_timeout: float = 5.0
    retries: int = 3
    tls: Tls | None = None
    headers: Headers = field(default_factory=dict)
    compression: Compression | None = None
    shared_memory: bool = False
    admin_key: str | None = None

    def __post_init__(self) -> None:
        """Validate the values before the first request."""
        if self.timeout <= 0 or self.connect_timeout <= 0:
            raise ValueError("timeouts must be greater than 0")
        if self.retries < 0:
            raise ValueError("retries must be at least 0")
        if self.compression not in {None, *get_args(Compression)}:
            raise ValueError(f"unknown compression {self.compression!r}: use gzip or deflate")
        object.__setattr__(self, "headers", normalized(self.headers))
        normalized({"admin-key": self.admin_key or ""})
