"""The Triton Inference Server that pip installs, run from Python."""

from scripts.embedded.access import Access, Tls
from scripts.embedded.endpoints import Endpoints
from scripts.embedded.installation import ServerError
from scripts.embedded.server import EmbeddedServer
from scripts.embedded.supervisor import Supervisor

__all__ = ["Access", "EmbeddedServer", "Endpoints", "ServerError", "Supervisor", "Tls"]
