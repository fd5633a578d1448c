"""A load that rises step by step, and what is measured in each step."""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from locust import LoadTestShape
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner

from tests.load.knee import Step
from tests.load.options import Options

SPAWN_RATE = 100.0  # users per second, the most that Locust does without a warning
MESSAGE = "load_step"


@dataclass
class Measured:
    """Response times in milliseconds, to three digits, of what succeeded, and what did not."""

    times: Counter[float] = field(default_factory=Counter)
    failed: int = 0


class Recorder:
    """Counts each process's requests by step, and brings the counts together where it is asked.

    Locust's own statistics come from the workers every three seconds, so a step's would hold parts
    of its neighbours. Here the workers are told which step it is.
    """

    def __init__(self, environment: Environment) -> None:
        self._now: int | None = None
        self._steps: defaultdict[int, Measured] = defaultdict(Measured)
        runner, events = environment.runner, environment.events
        assert runner
        if isinstance(runner, MasterRunner):
            events.worker_report.add_listener(self._gather)
            return
        runner.register_message(MESSAGE, self._turn)
        events.request.add_listener(self._count)
        if isinstance(runner, WorkerRunner):
            events.report_to_master.add_listener(self._report)

    def clear(self) -> None:
        """Begin anew."""
        self._now = None
        self._steps.clear()

    def measured(self, step: int) -> Measured:
        """Everything counted in a step so far."""
        return self._steps[step]

    def _turn(self, msg: Any, **_: Any) -> None:
        self._now = msg.data

    def _count(self, response_time: float, exception: Exception | None, **_: Any) -> None:
        if self._now is None:
            return
        if exception:
            self._steps[self._now].failed += 1
        else:
            self._steps[self._now].times[float(f"{response_time:.3g}")] += 1

    def _report(self, data: dict[str, Any], **_: Any) -> None:
        data[MESSAGE] = [
            [step, list(each.times.items()), each.failed] for step, each in self._steps.items()
        ]
        self._steps.clear()

    def _gather(self, data: dict[str, Any], **_: Any) -> None:
        for step, times, failed in data.get(MESSAGE, []):
            self._steps[step].times.update(dict(times))
            self._steps[step].failed += failed


class Steps(LoadTestShape):
    """Holds each number of users for so many seconds, from when the last of them has begun."""

    abstract = True  # so that Locust takes it when it is set, not wherever it is imported

    def __init__(self, options: Options, runner: Runner, recorder: Recorder) -> None:
        super().__init__()
        self.runner: Runner = runner
        self._users = options.steps
        self._seconds = options.step_seconds
        self._recorder = recorder
        self._durations: list[float] = []
        self._begun: float | None = None

    def tick(self) -> tuple[int, float] | None:
        """Say how many users there shall be, about once a second; None ends the test."""
        step = len(self._durations)
        if self._begun is None:
            if self.runner.user_count == self._users[step]:
                self._begin(step)
        elif time.perf_counter() - self._begun >= self._seconds:
            self._end()
            step += 1
        return (self._users[step], SPAWN_RATE) if step < len(self._users) else None

    def results(self) -> Sequence[Step]:
        """The steps that were measured to their end."""
        measured = [self._recorder.measured(step) for step in range(len(self._durations))]
        return [
            Step(users, seconds, each.times, each.failed)
            for users, seconds, each in zip(self._users, self._durations, measured, strict=False)
        ]

    def _begin(self, step: int) -> None:
        self.runner.send_message(MESSAGE, step)
        self._begun = time.perf_counter()

    def _end(self) -> None:
        self.runner.send_message(MESSAGE, None)
        assert self._begun is not None
        self._durations.append(time.perf_counter() - self._begun)
        self._begun = None
