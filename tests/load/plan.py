"""A load test's requests, encoded for one server, and the answers that are expected."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from client._endpoint import Endpoint
from tests.load import answers, traffic
from tests.load.answers import Answer, NotRefused, Refused, TopClasses, WrongAnswer
from tests.load.options import Options
from tests.load.traffic import ImageBatch
from tests.load.transports import Message, transport


@dataclass(frozen=True)
class PlannedRequest:
    """A batch and its encoded request."""

    batch: ImageBatch
    message: Message


class Plan:
    """The requests that the users of one process send to one server, in turn.

        plan = Plan(options, Endpoint.parse("localhost:8001"))
        plan.warm_up()
        request = plan.next()

    `expected` maps pictures to the classes that may come first. The first answer to any other
    picture decides.
    """

    def __init__(
        self,
        options: Options,
        endpoint: Endpoint,
        expected: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.transport = transport(endpoint, options.model, options.timeout)
        self.expected: dict[str, TopClasses] = {
            picture: frozenset(ids) for picture, ids in (expected or {}).items()
        }
        self._top_k = options.top_k
        self._share = options.broken
        self._batches = traffic.good(options.sizes, options.batch_size)
        self._good = self._planned(self._batches, options.top_k)
        self._broken = self._planned(traffic.broken(self._batches), options.top_k)
        self._numbers = itertools.count()

    def next(self) -> PlannedRequest:
        """Return the next request; the users of a process share one sequence."""
        number = next(self._numbers)
        requests = self._broken if traffic.is_broken(number, self._share) else self._good
        return requests[number % len(requests)]

    def warm_up(self) -> None:
        """Send each request once and keep the top classes of its images.

        The server's default top-k goes first: a `top_k` of 1 would not show ties.

        Raises:
            Failure: a request failed.
        """
        connection = self.transport.connect()
        try:
            for top_k in (None, self._top_k):
                for request in self._planned(self._batches, top_k):
                    answer = self.transport.decode(connection.send(request.message))
                    answers.check(answer, len(request.batch.images), top_k)
                    self._keep(request.batch, answer)
        finally:
            connection.close()

    def check(self, batch: ImageBatch, reply: Message) -> None:
        """Check the reply to a batch.

        Raises:
            Failure: it is wrong, or the batch should have been refused.
        """
        if batch.broken is not None:
            raise NotRefused("a broken image was answered")
        answer = self.transport.decode(reply)
        answers.check(answer, len(batch.images), self._top_k)
        self._keep(batch, answer)
        for picture, class_id in zip(batch.pictures, answer.class_ids[:, 0], strict=True):
            if int(class_id) not in self.expected[picture]:
                raise WrongAnswer("another top class than the same image's first answer")

    def check_refusal(self, batch: ImageBatch, refusal: Refused) -> None:
        """Check that a batch was refused for its broken image.

        Raises:
            Failure: it was refused for another reason.
        """
        if batch.broken is None:
            raise refusal
        answers.check_refusal(refusal, batch.broken)

    def _keep(self, batch: ImageBatch, answer: Answer) -> None:
        if not all(picture in self.expected for picture in batch.pictures):
            for picture, top in zip(batch.pictures, answers.top_classes(answer), strict=True):
                self.expected.setdefault(picture, top)

    def _planned(self, batches: Sequence[ImageBatch], top_k: int | None) -> list[PlannedRequest]:
        encode = self.transport.encode
        return [PlannedRequest(batch, encode(batch.images, top_k)) for batch in batches]
