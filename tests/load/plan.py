"""A load test's requests, encoded for one server, and what is known of their answers."""

import itertools
from dataclasses import dataclass

from client._endpoint import Endpoint
from tests.load import answers, traffic
from tests.load.answers import Answer, Failure, Likely, NotRefused, Refused, WrongAnswer
from tests.load.options import Options
from tests.load.traffic import Request
from tests.load.wires import Connection, Encoded, Reply, wire


@dataclass(frozen=True)
class Ready:
    """A request, and its bytes."""

    request: Request
    encoded: Encoded


class Plan:
    """What the users of one process send to one server, in turn.

    plan = Plan(options, Endpoint.parse("localhost:8001"))
    plan.warm_up()
    ready = plan.next()
    """

    def __init__(self, options: Options, endpoint: Endpoint) -> None:
        self.wire = wire(endpoint, options.model, options.timeout)
        self._top_k = options.top_k
        self._share = options.broken
        good = traffic.good(options.sizes, options.batch_size)
        self._good = [self._ready(request, options.top_k) for request in good]
        self._broken = [self._ready(each, options.top_k) for each in traffic.broken(good)]
        # The server's own top-k shows what is as good as tied where `top_k` is 1.
        self._first = [self._ready(request, None) for request in good]
        self._likely: dict[str, Likely] = {}
        self._numbers = itertools.count()
        self.trouble: Failure | None = None

    def next(self) -> Ready:
        """Choose the next request; the users of a process share one sequence."""
        number = next(self._numbers)
        among = self._broken if traffic.is_broken(number, self._share) else self._good
        return among[number % len(among)]

    def warm_up(self) -> None:
        """Send each request once, and note what its images are taken for.

        What went wrong is kept in `trouble`: the requests that meet it are failures of the test.
        """
        connection = self.wire.connect()
        try:
            for ready, top_k in [
                *((ready, None) for ready in self._first),
                *((ready, self._top_k) for ready in self._good),
            ]:
                answer = connection.decode(connection.send(ready.encoded))
                answers.check(answer, len(ready.request.images), top_k)
                self._note(ready.request, answer)
        except Failure as error:
            self.trouble = error
        finally:
            connection.close()

    def check(self, connection: Connection, request: Request, reply: Reply) -> None:
        """Return if a reply is a right answer to a request.

        Raises:
            Failure: it is none, or an answer to a request that should have been refused.
        """
        if request.broken is not None:
            raise NotRefused("a broken image was answered")
        answer = connection.decode(reply)
        answers.check(answer, len(request.images), self._top_k)
        self._note(request, answer)
        for picture, class_id in zip(request.pictures, answer.class_ids[:, 0], strict=True):
            if int(class_id) not in self._likely[picture]:
                raise WrongAnswer("another top class than the same image's first answer")

    def check_refusal(self, request: Request, refusal: Refused) -> None:
        """Return if a request was to be refused, and in these words.

        Raises:
            Failure: it was not.
        """
        if request.broken is None:
            raise refusal
        answers.check_refusal(refusal, request.broken)

    def _note(self, request: Request, answer: Answer) -> None:
        """Keep the first answer for each picture."""
        if all(picture in self._likely for picture in request.pictures):
            return
        for picture, likely in zip(request.pictures, answers.likely(answer), strict=True):
            self._likely.setdefault(picture, likely)

    def _ready(self, request: Request, top_k: int | None) -> Ready:
        return Ready(request, self.wire.encode(request.images, top_k))
