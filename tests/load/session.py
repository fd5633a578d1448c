"""The events of a load test, in the process that directs it and in its workers."""

import logging
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import gevent
from flask import Response, jsonify, request
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from locust.web import WebUI

from tests.load import knee
from tests.load.answers import Failure
from tests.load.options import OPTIONS, Options, endpoint, protocols
from tests.load.plan import Plan
from tests.load.report import LoadReport
from tests.load.steps import Recorder, Steps
from tests.load.thresholds import missed
from tests.load.users import ClassifierUser, plans

logger = logging.getLogger(__name__)
tables = logging.getLogger("locust.stats_logger")  # prints Locust's own tables

REPLACED = {"num_users": "-u", "spawn_rate": "-r", "run_time": "-t"}
MAX_WAIT_SECONDS = 60
PLANS, WORKER = "load_plans", "load_worker"  # messages to and from workers


class Session:
    """Listens to the events of one environment."""

    def __init__(self, environment: Environment, web_ui: WebUI | None) -> None:
        self._environment = environment
        self._recorder = Recorder(environment)
        self._report = LoadReport()
        self._workers: dict[str, bool] = {}  # by node, whether they are prepared
        self._plans: object = None  # as last received
        events, runner = environment.events, environment.runner
        assert runner
        events.test_start.add_listener(lambda **_: self._recorder.clear())
        if isinstance(runner, WorkerRunner):
            runner.register_message(PLANS, self._receive_plans)
            runner.send_message(WORKER, {"prepared": False})
            return
        runner.register_message(WORKER, self._receive_worker)
        events.test_start.add_listener(self._send_plans)
        events.quitting.add_listener(self._judge)
        events.quit.add_listener(self._quit)
        given = environment.parsed_options
        assert given
        events.test_stop.add_listener(lambda **_: self._print_steps(when=not given.headless))
        try:
            self._choose_users(given.host, given.user_classes)
            if given.headless or given.autostart:
                for dest, flag in REPLACED.items():
                    if given.steps and getattr(given, dest) is not None:
                        raise ValueError(f"--steps does not go with {flag}")
                self._prepare(vars(given))
                self._prepare_workers(given)
        except (ValueError, Failure) as error:
            sys.exit(f"error: {_line(error)}")
        if web_ui and web_ui.app:
            web_ui.app.before_request(self._check_form)
            self._report.add_to_web_ui(web_ui)

    def _choose_users(self, host: str | None, named: list[str]) -> None:
        """Keep the user classes that were named, or the one of the host's protocol."""
        classes: Mapping[str, Any] = self._environment.available_user_classes or {}
        kinds = (each for each in classes.values() if issubclass(each, ClassifierUser))
        users = {kind.protocol: kind for kind in kinds}
        chosen = protocols(host, {name: each.__name__ in named for name, each in users.items()})
        self._environment.user_classes = [users[each] for each in chosen]

    def _prepare(self, given: Mapping[str, Any]) -> None:
        """Check the options and warm up the server, before Locust's clock starts.

        Raises:
            ValueError: an option is invalid.
            Failure: the server does not accept the requests.
        """
        options = Options.read(given)
        environment = self._environment
        environment.shape_class = self._report.shape = None
        if options.steps and given["class_picker"]:
            raise ValueError("--steps does not go with --class-picker")
        plans.clear()
        for user in environment.user_classes:
            assert issubclass(user, ClassifierUser)
            where = endpoint(environment.host, user.protocol)
            plans[user.protocol] = Plan(options, where, expected=None)
            plans[user.protocol].warm_up()
            self._report.host = str(where)
        self._report.options = given
        if options.steps:
            assert environment.runner
            shape = Steps(options, environment.runner, self._recorder)
            environment.shape_class = self._report.shape = shape

    def _check_form(self) -> Response | None:
        """Reject an invalid form as Locust does: its page shows the message above the form."""
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
            return jsonify({"success": False, "message": _line(error), "host": environment.host})
        return None

    def _prepare_workers(self, given: Namespace) -> None:
        """Wait until all workers have their plans: Locust's clock starts after that."""
        runner, sent = self._environment.runner, set[str]()
        deadline = time.monotonic() + (given.expect_workers_max_wait or MAX_WAIT_SECONDS)
        while isinstance(runner, MasterRunner) and time.monotonic() < deadline:
            for node in self._workers.keys() - sent:
                self._send_plans(node)
                sent.add(node)
            if sum(self._workers.values()) >= given.expect_workers:
                return
            gevent.sleep(0.05)

    def _receive_worker(self, msg: Any, **_: Any) -> None:
        self._workers[msg.node_id] = msg.data["prepared"]

    def _send_plans(self, node: str | None = None, **_: Any) -> None:
        """Send the expected answers to a worker, or to all before Locust sends them their users."""
        runner, given = self._environment.runner, vars(self._environment.parsed_options)
        if isinstance(runner, MasterRunner):
            options = {option.dest: given[option.dest] for option in OPTIONS}
            plain = {name: plan.expected_ids() for name, plan in plans.items()}
            message = {"options": options, "host": self._environment.host, "expected": plain}
            runner.send_message(PLANS, message, client_id=node)

    def _receive_plans(self, msg: Any, **_: Any) -> None:
        if msg.data != self._plans:
            self._plans = msg.data
            options, host = Options.read(msg.data["options"]), msg.data["host"]
            plans.clear()
            for protocol, expected in msg.data["expected"].items():
                plans[protocol] = Plan(options, endpoint(host, protocol), expected)
        assert self._environment.runner
        self._environment.runner.send_message(WORKER, {"prepared": True})

    def _judge(self, **_: Any) -> None:
        """Set the exit code."""
        environment, given = self._environment, self._environment.parsed_options
        assert given
        assert environment.runner
        total = environment.stats.total
        p99 = total.get_response_time_percentile(0.99) or 0
        thresholds = (given.max_error_rate, given.max_p99_ms)
        lines = missed(*thresholds, total.num_requests, total.num_failures, p99)
        for line in lines:
            logger.error("threshold missed: %s", line)
        if lines:
            environment.process_exit_code = 1
        elif given.max_error_rate is not None and not environment.runner.exceptions:
            environment.process_exit_code = 0

    def _quit(self, **_: Any) -> None:
        given = self._environment.parsed_options
        assert given
        self._print_steps(when=given.headless)
        self._report.write(given.html_file, given.csv_prefix)

    def _print_steps(self, *, when: bool) -> None:
        if when and (steps := self._report.steps):
            for line in ["", *knee.table(steps), ""]:
                tables.info(line)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
