"""The Triton Inference Server that pip installs, run from Python."""

from scripts.embedded.access import Access, Tls
from scripts.embedded.installation import ServerError
from scripts.embedded.server import EmbeddedServer, Endpoints
from scripts.embedded.supervisor import supervise

__all__ = ["Access", "EmbeddedServer", "Endpoints", "ServerError", "Tls", "supervise"]
