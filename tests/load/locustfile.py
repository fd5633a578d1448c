"""Load for a server: `locust -f tests/load/locustfile.py --host localhost:8001`.

The host says what is spoken: gRPC, or HTTP if it begins with http:// or ends in Triton's port for
it, 8000. Or name the users: `HttpUser`, `GrpcUser` or both.
"""

from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.web import WebUI

from tests.load import options
from tests.load.session import Session
from tests.load.users import GrpcUser, HttpUser

__all__ = ["GrpcUser", "HttpUser"]


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    """Add this file's options to Locust's."""
    options.add_to(parser)


@events.init.add_listener
def begin(environment: Environment, web_ui: WebUI | None, **_: Any) -> None:
    """Set everything up, in each process."""
    Session(environment, web_ui)
