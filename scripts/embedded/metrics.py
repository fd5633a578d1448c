"""Relays the metrics of the tritonserver that serves at the moment.

Two tritonservers cannot listen on the same metrics port, as they can for HTTP and gRPC. Each has a
private port for its metrics, and the public port belongs to this process.
"""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from scripts.embedded.endpoints import LOOPBACK

TIMEOUT_SECONDS = 5
POLL_SECONDS = 0.05  # the longest that a stop waits for the thread that answers


class MetricsRelay(ThreadingHTTPServer):
    """Answers on an address with the metrics of the server on the local port `source`."""

    source = 0
    daemon_threads = True

    def __init__(self, address: str, port: int) -> None:
        super().__init__((address, port), _Handler)

    @contextmanager
    def running(self) -> Iterator["MetricsRelay"]:
        """Answer in a thread for the duration of a `with` block."""
        thread = threading.Thread(
            target=self.serve_forever, args=[POLL_SECONDS], name="metrics", daemon=True
        )
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join()


def fetch(port: int, path: str = "/metrics") -> tuple[int, str, bytes]:
    """Return status, content type and body of a tritonserver's metrics.

    Raises:
        OSError, http.client.HTTPException: it does not answer.
    """
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.headers.get_content_type(), response.read()
    finally:
        connection.close()


class _Handler(BaseHTTPRequestHandler):
    server: MetricsRelay
    timeout = TIMEOUT_SECONDS
    server_version, sys_version = "metrics", ""

    def do_GET(self) -> None:
        try:
            status, content_type, body = fetch(self.server.source, self.path)
        except (OSError, http.client.HTTPException):
            self.send_error(http.HTTPStatus.SERVICE_UNAVAILABLE, "the server is starting")
            return
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Do not write a line for each request."""
