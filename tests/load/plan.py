"""A load test's requests, encoded for one server, and the answers that are expected."""

import itertools
from collections.abc import Mapping, Sequence

from client._endpoint import Endpoint
from tests.load import answers, traffic
from tests.load.answers import Answer, Failure, NotRefused, Refused, TopClasses, WrongAnswer
from tests.load.options import Options
from tests.load.traffic import ImageBatch
from tests.load.transports import TRANSPORTS, Message

PlannedRequest = tuple[ImageBatch, Message]


class Plan:
    """The requests that the users of one process send to one server, in turn.

    `expected` maps pictures to the class ids that may come first. For other pictures the first
    answer decides.
    """

    def __init__(
        self, options: Options, endpoint: Endpoint, expected: Mapping[str, Sequence[int]] | None
    ) -> None:
        self.transport = TRANSPORTS[endpoint.protocol](endpoint, options.model, options.timeout)
        pairs = (expected or {}).items()
        self._expected: dict[str, TopClasses] = {name: frozenset(ids) for name, ids in pairs}
        self._top_k = options.top_k
        self._share = options.broken
        self._batches = traffic.good(options.sizes, options.batch_size)
        self._good = self._planned(self._batches, options.top_k)
        self._broken = self._planned(traffic.broken(self._batches), options.top_k)
        self._numbers = itertools.count()

    def next(self) -> PlannedRequest:
        """Return the next batch and its request; the users of a process share one sequence."""
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
            for top_k in dict.fromkeys((None, self._top_k)):
                for batch, message in self._planned(self._batches, top_k):
                    answer = self.transport.decode(connection.send(message))
                    answers.check(answer, len(batch.images), top_k)
                    self._keep(batch, answer)
        finally:
            connection.close()

    def expected_ids(self) -> dict[str, list[int]]:
        """Return what another process's plan takes as `expected`."""
        return {picture: sorted(ids) for picture, ids in self._expected.items()}

    def verdict(self, batch: ImageBatch, outcome: Message | Failure) -> Failure | None:
        """Return the failure that an outcome is, or None if it is a success.

        Good batches must be answered correctly, and broken ones refused.
        """
        try:
            if isinstance(outcome, Message):
                self._check(batch, outcome)
            elif isinstance(outcome, Refused) and batch.broken is not None:
                answers.check_refusal(outcome, batch.broken)
            else:
                return outcome
        except Failure as failure:
            return failure
        return None

    def _check(self, batch: ImageBatch, reply: Message) -> None:
        if batch.broken is not None:
            raise NotRefused("a broken image was answered")
        answer = self.transport.decode(reply)
        answers.check(answer, len(batch.images), self._top_k)
        self._keep(batch, answer)
        for picture, class_id in zip(batch.pictures, answer.class_ids[:, 0], strict=True):
            if int(class_id) not in self._expected[picture]:
                raise WrongAnswer("another top class than the same image's first answer")

    def _keep(self, batch: ImageBatch, answer: Answer) -> None:
        if not all(picture in self._expected for picture in batch.pictures):
            for picture, top in zip(batch.pictures, answers.top_classes(answer), strict=True):
                self._expected.setdefault(picture, top)

    def _planned(self, batches: Sequence[ImageBatch], top_k: int | None) -> list[PlannedRequest]:
        encode = self.transport.encode
        return [(batch, encode(batch.images, top_k)) for batch in batches]
