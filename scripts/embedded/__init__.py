"""The Triton Inference Server that pip installs, started and stopped from Python."""

from scripts.embedded.installation import ServerError
from scripts.embedded.server import EmbeddedServer, Endpoints

__all__ = ["EmbeddedServer", "Endpoints", "ServerError"]
