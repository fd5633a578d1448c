"""Load test of a server: `locust -f tests/load/locustfile.py --host localhost:8001`.

The host selects the protocol: HTTP for http:// and for port 8000, gRPC otherwise. Naming the user
classes `HttpUser` or `GrpcUser`, or both, overrides that.
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
    options.add_to(parser)


@events.init.add_listener
def start(environment: Environment, web_ui: WebUI | None, **_: Any) -> None:
    Session(environment, web_ui)
