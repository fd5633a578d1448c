"""A load that rises step by step, and the counts of each step."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from locust import LoadTestShape
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner

from tests.load.knee import LoadStep
from tests.load.options import Options

SPAWN_RATE = 100.0  # users per second; Locust warns above it
MESSAGE = "load_step"
FAILED = -1.0  # in place of a response time


class Recorder:
    """Counts requests by step in each process; the master collects the counts.

    Locust's own statistics arrive from the workers every three seconds, so they would mix steps.
    Here the master tells the workers which step it is.
    """

    def __init__(self, environment: Environment) -> None:
        self._step: int | None = None
        # By step and response time in milliseconds, rounded to three digits.
        self._counts: Counter[tuple[int, float]] = Counter()
        runner, events = environment.runner, environment.events
        assert runner
        if isinstance(runner, MasterRunner):
            events.worker_report.add_listener(self._collect)
            return
        runner.register_message(MESSAGE, self._change)
        events.request.add_listener(self._count)
        if isinstance(runner, WorkerRunner):
            events.report_to_master.add_listener(self._report)

    def clear(self) -> None:
        self._step = None
        self._counts.clear()

    def result(self, step: int, users: int, seconds: float) -> LoadStep:
        """Return everything counted in a step so far."""
        times = {ms: count for (each, ms), count in self._counts.items() if each == step}
        failed = times.pop(FAILED, 0)
        return LoadStep(users, seconds, times, failed)

    def _change(self, msg: Any, **_: Any) -> None:
        self._step = msg.data

    def _count(self, response_time: float, exception: Exception | None, **_: Any) -> None:
        if self._step is not None:
            self._counts[self._step, FAILED if exception else float(f"{response_time:.3g}")] += 1

    def _report(self, data: dict[str, Any], **_: Any) -> None:
        data[MESSAGE] = [[*key, count] for key, count in self._counts.items()]
        self._counts.clear()

    def _collect(self, data: dict[str, Any], **_: Any) -> None:
        for step, milliseconds, count in data.get(MESSAGE, []):
            self._counts[step, milliseconds] += count


class Steps(LoadTestShape):
    """Holds each number of users for some seconds, counted from the start of the last user."""

    abstract = True  # so that Locust uses it only when it is set

    def __init__(self, options: Options, runner: Runner, recorder: Recorder) -> None:
        super().__init__()
        self.runner: Runner = runner
        self._users = options.steps
        self._seconds = options.step_seconds
        self._recorder = recorder
        self._durations: list[float] = []
        self._start: float | None = None

    def tick(self) -> tuple[int, float] | None:
        """Return users and spawn rate, about once a second; None ends the test."""
        step = len(self._durations)
        if self._start is None:
            if self.runner.user_count == self._users[step]:
                self.runner.send_message(MESSAGE, step)
                self._start = time.perf_counter()
        elif time.perf_counter() - self._start >= self._seconds:
            self.runner.send_message(MESSAGE, None)
            self._durations.append(time.perf_counter() - self._start)
            self._start = None
            step += 1
        return (self._users[step], SPAWN_RATE) if step < len(self._users) else None

    def results(self) -> Sequence[LoadStep]:
        """Return the completed steps."""
        pairs = zip(self._users, self._durations, strict=False)
        return [self._recorder.result(step, *pair) for step, pair in enumerate(pairs)]
