"""Who may use what of a server: tritonserver's options for the administrator's key and for TLS."""

import logging
import re
import secrets
import ssl
import stat
from dataclasses import dataclass, field
from pathlib import Path

from scripts.errors import UserError

logger = logging.getLogger(__name__)

# With these a client changes the server, or sees what belongs to other clients. Inference, health,
# metadata, configuration and statistics stay open.
RESTRICTED = ("model-repository", "shared-memory", "trace", "logging")

# The header that carries the key. Over gRPC Triton puts a prefix before its name.
HEADER = "admin-key"
GRPC_HEADER = f"triton-grpc-protocol-{HEADER}"

# Stands for the header's name when there is no key. Every user of the machine can read the options
# in /proc, so an unknown value alone does not close the APIs. No request can carry this name: HTTP
# ends a header's name at the first colon, and gRPC allows neither colons nor spaces in it. Triton
# shows it to refused clients.
NO_HEADER = "none: the server was started without an administrator's key"

KEY = re.compile(r"[!-~]+")  # what a header carries unchanged over HTTP and gRPC


@dataclass(frozen=True)
class Tls:
    """PEM files for TLS over gRPC; with `client_ca` clients need a certificate signed by it."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def check(self) -> None:
        """Load the files.

        Raises:
            UserError: one is missing or invalid, or the key does not belong to the certificate.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        files = f"{self.certificate} and {self.key}"
        try:
            # Without a password OpenSSL would ask for that of an encrypted key on the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
            if self.client_ca:
                files = str(self.client_ca)
                context.load_verify_locations(self.client_ca)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise UserError(f"cannot use {files} for TLS: {error}") from error

    def options(self) -> list[str]:
        """Return tritonserver's options."""
        options = [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={self.certificate}",
            f"--grpc-server-key={self.key}",
        ]
        if self.client_ca:
            options += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={self.client_ca}"]
        return options


@dataclass(frozen=True)
class Access:
    """What clients have to show.

    Attributes:
        admin_key: the value of `HEADER` that the restricted APIs require; without a key nobody can
            use them.
        tls: the files for TLS over gRPC; no TLS by default. Triton has no TLS over HTTP.
    """

    admin_key: str | None = field(default=None, repr=False)
    tls: Tls | None = None

    def check(self) -> None:
        """Raise UserError if a file for TLS is missing or invalid."""
        if self.tls:
            self.tls.check()

    def options(self) -> list[str]:
        """Return tritonserver's options."""
        header = HEADER if self.admin_key else NO_HEADER
        required = f"{','.join(RESTRICTED)}:{header}={self.admin_key or secrets.token_hex()}"
        return [
            f"--http-restricted-api={required}",
            f"--grpc-restricted-protocol={required}",
            *(self.tls.options() if self.tls else ()),
        ]


def key_headers(key: str) -> dict[str, str]:
    """Return the headers that carry the key, over HTTP and over gRPC; the other one is ignored."""
    return {HEADER: key, GRPC_HEADER: key}


def read_key(file: Path) -> str:
    """Read the administrator's key, without the white space around it.

    Raises:
        UserError: the file is empty, or a header cannot carry what is in it.
    """
    key = file.read_text(errors="replace").strip()
    if not KEY.fullmatch(key):
        raise UserError(
            f"{file} must hold the administrator's key, one word of visible ASCII characters; "
            f"make one: openssl rand -hex 32 > {file}"
        )
    if file.stat().st_mode & stat.S_IROTH:
        logger.warning("every user can read %s; run: chmod o-r %s", file, file)
    return key
