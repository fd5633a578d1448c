"""What happens around a load test, in the process that directs it and in its workers."""

import logging
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from flask import Response, jsonify, request
from locust.env import Environment
from locust.runners import WorkerRunner
from locust.web import WebUI

from tests.load import knee
from tests.load.answers import Failure
from tests.load.options import Options, protocols
from tests.load.steps import Recorder, Steps
from tests.load.thresholds import Thresholds
from tests.load.users import ClassifierUser, forget_plans, plan_for

logger = logging.getLogger(__name__)
tables = logging.getLogger("locust.stats_logger")  # where Locust's own tables go

REPLACED = {"num_users": "-u", "spawn_rate": "-r", "run_time": "-t"}


class Session:
    """Listens to one environment's events."""

    def __init__(self, environment: Environment, web_ui: WebUI | None) -> None:
        self._environment = environment
        self._recorder = Recorder(environment)
        self._steps: Steps | None = None
        self._is_worker = isinstance(environment.runner, WorkerRunner)
        environment.events.test_start.add_listener(self._begin)
        environment.events.test_stop.add_listener(self._end)
        if self._is_worker:
            return
        environment.events.quitting.add_listener(self._judge)
        environment.events.quit.add_listener(self._print_steps)
        given = environment.parsed_options
        assert given
        starts = given.headless or given.autostart
        try:
            self._choose_users(given.host, given.user_classes)
            if starts:
                _check_common_options(given)
                self._prepare(vars(given))
        except (ValueError, Failure) as error:
            sys.exit(f"error: {_said(error)}")
        if web_ui and web_ui.app:
            web_ui.app.before_request(self._check_form)

    def _choose_users(self, host: str | None, named: list[str]) -> None:
        """Leave those users that speak the host's protocol, unless they were named."""
        kinds = _kinds(self._environment)
        spoken = protocols(host, {kind: each.__name__ in named for kind, each in kinds.items()})
        self._environment.user_classes = [kinds[each] for each in spoken]

    def _prepare(self, given: Mapping[str, Any]) -> None:
        """Refuse options that cannot be, and a server that does not take the requests.

        Raises:
            ValueError: an option cannot be.
            Failure: the server does not take the requests.
        """
        options = Options.read(given)
        environment = self._environment
        environment.shape_class = self._steps = None
        if options.steps:
            assert environment.runner
            if given["class_picker"]:
                raise ValueError("--steps does not go with --class-picker")
            self._steps = Steps(options, environment.runner, self._recorder)
        for each in environment.user_classes:
            assert issubclass(each, ClassifierUser)
            plan = plan_for(environment, options, each.protocol)
            if plan.trouble:
                forget_plans()
                raise plan.trouble
        environment.shape_class = self._steps

    def _check_form(self) -> Response | None:
        """Answer a form that cannot be in Locust's own way: it shows the message above the form."""
        if not (request.method == "POST" and request.path.endswith("/swarm")):
            return None
        environment = self._environment
        given = vars(environment.parsed_options) | request.form.to_dict()
        environment.host = given["host"] or None
        named = request.form.getlist("user_classes") or given["user_classes"]
        try:
            self._choose_users(environment.host, named)
            self._prepare(given)
        except (ValueError, Failure) as error:
            return jsonify({"success": False, "message": _said(error), "host": environment.host})
        return None

    def _begin(self, **_: Any) -> None:
        self._recorder.clear()

    def _end(self, **_: Any) -> None:
        forget_plans()
        given = self._environment.parsed_options
        if not self._is_worker and given and not given.headless:
            self._print_steps()

    def _judge(self, **_: Any) -> None:
        """Set the exit code."""
        environment, given = self._environment, self._environment.parsed_options
        assert given
        assert environment.runner
        total = environment.stats.total
        missed = Thresholds(given.max_error_rate, given.max_p99_ms).missed(
            requests=total.num_requests,
            failures=total.num_failures,
            p99_ms=total.get_response_time_percentile(0.99) or 0,
        )
        for line in missed:
            logger.error("threshold missed: %s", line)
        if missed:
            environment.process_exit_code = 1
        elif given.max_error_rate is not None and not environment.runner.exceptions:
            environment.process_exit_code = 0

    def _print_steps(self, **_: Any) -> None:
        """Print the table once."""
        steps, self._steps = self._steps, None
        if steps and (results := steps.results()):
            for line in ["", *knee.table(results), ""]:
                tables.info(line)


def _check_common_options(given: Namespace) -> None:
    """Refuse on the command line what steps would leave without effect."""
    for dest, flag in REPLACED.items():
        if given.steps and getattr(given, dest) is not None:
            raise ValueError(f"--steps does not go with {flag}")


def _kinds(environment: Environment) -> dict[str, type[ClassifierUser]]:
    classes: Mapping[str, Any] = environment.available_user_classes or {}
    return {each.protocol: each for each in classes.values() if issubclass(each, ClassifierUser)}


def _said(error: Exception) -> str:
    """One line, whatever the error."""
    return " ".join(str(error).split())
