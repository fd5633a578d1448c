"""The two kinds of users: each sends the next request as soon as it has its answer."""

import time
from typing import ClassVar

from gevent.lock import BoundedSemaphore
from locust import User, task
from locust.env import Environment

from client._endpoint import Protocol
from tests.load.answers import Failure, Refused
from tests.load.options import Options, endpoint
from tests.load.plan import Plan, Ready
from tests.load.wires import Reply

_plans: dict[tuple[Options, str], Plan] = {}
_one_at_a_time = BoundedSemaphore()


def plan_for(environment: Environment, options: Options, protocol: str) -> Plan:
    """Get the plan that this process has for a server, or make one and warm it up.

    Raises:
        ValueError: the host is no server's URL.
    """
    where = endpoint(environment.host, protocol)
    key = options, str(where)
    with _one_at_a_time:
        if key not in _plans:
            plan = Plan(options, where)
            plan.warm_up()
            _plans[key] = plan
        return _plans[key]


def forget_plans() -> None:
    """Drop what is known of a server, which may be another one in the next test."""
    _plans.clear()


class ClassifierUser(User):
    """What both kinds share."""

    abstract = True
    protocol: ClassVar[Protocol]

    def on_start(self) -> None:
        """Prepare this process, if this is its first user, and connect."""
        options = Options.read(vars(self.environment.parsed_options))
        self._plan = plan_for(self.environment, options, self.protocol)
        self._connection = self._plan.wire.connect()

    def on_stop(self) -> None:
        """Disconnect."""
        self._connection.close()

    @task
    def classify(self) -> None:
        """Send one request, stop the clock, and only then look at the answer."""
        ready = self._plan.next()
        reply: Reply | None = None
        failure: Failure | None = None
        start = time.time()
        clock = time.perf_counter()
        try:
            reply = self._connection.send(ready.encoded)
        except Failure as error:
            failure = error
        elapsed = time.perf_counter() - clock
        self.environment.events.request.fire(
            request_type=self._plan.wire.method,
            name=ready.request.name,
            response_time=elapsed * 1000,
            response_length=len(reply.body) if reply else 0,
            exception=self._verdict(ready, reply, failure),
            context={},
            start_time=start,
            url=None,
        )

    def _verdict(
        self, ready: Ready, reply: Reply | None, failure: Failure | None
    ) -> Failure | None:
        try:
            if reply:
                self._plan.check(self._connection, ready.request, reply)
            elif isinstance(failure, Refused):
                self._plan.check_refusal(ready.request, failure)
            else:
                return failure
        except Failure as wrong:
            return wrong
        return None


class GrpcUser(ClassifierUser):
    """Speaks gRPC; several users share a connection."""

    protocol = "grpc"
    host = "localhost:8001"


class HttpUser(ClassifierUser):
    """Speaks HTTP, on a connection of its own."""

    protocol = "http"
    host = "http://localhost:8000"
