"""User classes: each user sends its next request as soon as it has the answer to the last."""

import time
from typing import ClassVar

from locust import User, task
from locust.env import Environment

from client._endpoint import Protocol
from tests.load.answers import Failure, Refused
from tests.load.options import Options, endpoint
from tests.load.plan import Plan, PlannedRequest
from tests.load.transports import GrpcConnection, HttpConnection, Message

plans: dict[str, Plan] = {}  # of this process's current test, by protocol


def plan_for(environment: Environment, protocol: str) -> Plan:
    """Return the plan of the current test.

    A worker that joins a running test makes its own, without a warm-up.
    """
    if protocol not in plans:
        options = Options.read(vars(environment.parsed_options))
        plans[protocol] = Plan(options, endpoint(environment.host, protocol))
    return plans[protocol]


class ClassifierUser(User):
    """The base class of both."""

    abstract = True
    protocol: ClassVar[Protocol]
    _connection: GrpcConnection | HttpConnection | None = None

    def on_start(self) -> None:
        """Connect."""
        self._plan = plan_for(self.environment, self.protocol)
        self._connection = self._plan.transport.connect()

    def on_stop(self) -> None:
        """Disconnect, also if `on_start` was interrupted."""
        if self._connection:
            self._connection.close()

    @task
    def classify(self) -> None:
        """Send one request, stop the clock, and check the answer."""
        request = self._plan.next()
        reply: Message | None = None
        failure: Failure | None = None
        assert self._connection
        start = time.time()
        clock = time.perf_counter()
        try:
            reply = self._connection.send(request.message)
        except Failure as error:
            failure = error
        elapsed = time.perf_counter() - clock
        self.environment.events.request.fire(
            request_type=self._plan.transport.method,
            name=request.batch.name,
            response_time=elapsed * 1000,
            response_length=len(reply.body) if reply else 0,
            exception=self._verdict(request, reply, failure),
            context={},
            start_time=start,
            url=None,
        )

    def _verdict(
        self, request: PlannedRequest, reply: Message | None, failure: Failure | None
    ) -> Failure | None:
        try:
            if reply:
                self._plan.check(request.batch, reply)
            elif isinstance(failure, Refused):
                self._plan.check_refusal(request.batch, failure)
            else:
                return failure
        except Failure as wrong:
            return wrong
        return None


class GrpcUser(ClassifierUser):
    """Uses gRPC; several users share a connection."""

    protocol = "grpc"
    host = "localhost:8001"


class HttpUser(ClassifierUser):
    """Uses HTTP; each user has its own connection."""

    protocol = "http"
    host = "http://localhost:8000"
