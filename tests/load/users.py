"""User classes: each user sends its next request as soon as it has the answer to the last."""

import time
from typing import ClassVar

from locust import User, task

from client._endpoint import Protocol
from tests.load.answers import Failure
from tests.load.options import Options, endpoint
from tests.load.plan import Plan
from tests.load.transports import Connection, Message

plans: dict[str, Plan] = {}  # of this process's current test, by protocol


class ClassifierUser(User):
    """The base class of both."""

    abstract = True
    protocol: ClassVar[Protocol]
    _connection: Connection | None = None

    def on_start(self) -> None:
        """Connect; a worker that joined a running test makes its own plan first."""
        if self.protocol not in plans:
            options = Options.read(vars(self.environment.parsed_options))
            where = endpoint(self.environment.host, self.protocol)
            plans[self.protocol] = Plan(options, where, expected=None)
        self._plan = plans[self.protocol]
        self._connection = self._plan.transport.connect()

    def on_stop(self) -> None:
        """Disconnect, also if `on_start` was interrupted."""
        if self._connection:
            self._connection.close()

    @task
    def classify(self) -> None:
        """Send one request, stop the clock, and check the answer."""
        assert self._connection
        batch, message = self._plan.next()
        outcome: Message | Failure
        start, clock = time.time(), time.perf_counter()
        try:
            outcome = self._connection.send(message)
        except Failure as error:
            outcome = error
        elapsed = time.perf_counter() - clock
        self.environment.events.request.fire(
            request_type=self._plan.transport.method,
            name=batch.name,
            response_time=elapsed * 1000,
            response_length=len(outcome.body) if isinstance(outcome, Message) else 0,
            exception=self._plan.verdict(batch, outcome),
            context={},
            start_time=start,
            url=None,
        )


class GrpcUser(ClassifierUser):
    """Uses gRPC; several users share a connection."""

    protocol = "grpc"
    host = "localhost:8001"


class HttpUser(ClassifierUser):
    """Uses HTTP; each user has its own connection."""

    protocol = "http"
    host = "http://localhost:8000"
