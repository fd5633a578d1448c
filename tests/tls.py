"""Certificates for tests: a CA, a server certificate and a client certificate."""

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Identity:
    """PEM files: a certificate, its private key, and both in one file."""

    certificate: Path
    key: Path
    both: Path


@dataclass(frozen=True)
class Certificates:
    ca: Path
    server: Identity
    client: Identity


def issue(folder: Path) -> Certificates:
    """Create certificates; the server's is valid for localhost, 127.0.0.1 and 127.0.0.2."""
    authority = trustme.CA()
    ca = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    return Certificates(
        ca,
        _identity(authority, folder / "server", "localhost", "127.0.0.1", "127.0.0.2"),
        _identity(authority, folder / "client", "someone@example.com"),
    )


def _identity(authority: trustme.CA, path: Path, *names: str) -> Identity:
    issued = authority.issue_cert(*names)
    identity = Identity(*(path.with_suffix(suffix) for suffix in (".crt", ".key", ".pem")))
    issued.cert_chain_pems[0].write_to_path(str(identity.certificate))
    issued.private_key_pem.write_to_path(str(identity.key))
    issued.private_key_and_cert_chain_pem.write_to_path(str(identity.both))
    return identity
