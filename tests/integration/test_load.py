"""The Locust file, run as its users run it, against a real server."""

import csv
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from scripts.embedded import EmbeddedServer, Endpoints
from tests.conftest import ROOT
from tests.integration.conftest import PROTOCOLS, url

LOCUST = [sys.executable, "-m", "locust", "-f", "tests/load/locustfile.py"]
SMALL = ["--model", "birds", "--sizes", "64x48,120x90"]
BRIEFLY = ["--headless", "--only-summary", "-u", "2", "-r", "100", "-t", "1"]
STEPS = ["--headless", "--only-summary", "--steps", "1,2", "--step-seconds", "1"]


def locust(*arguments: str) -> subprocess.CompletedProcess[str]:
    port = str(Endpoints.free().http)  # for the workers, where there are any
    workers = {"LOCUST_MASTER_BIND_PORT": port, "LOCUST_MASTER_NODE_PORT": port}
    return subprocess.run(
        [*LOCUST, *SMALL, *arguments],
        cwd=ROOT,
        env=os.environ | workers | {"LOCUST_MASTER_BIND_HOST": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # where Locust's tables go
        text=True,
        check=False,
        timeout=60,
    )


def row(said: str, name: str) -> tuple[int, int]:
    """The requests and failures in a row of Locust's table."""
    found = re.search(rf"^\s*\S* *{name} +(\d+) +(\d+)\(", said, re.MULTILINE)
    assert found, said
    return int(found[1]), int(found[2])


def counted(file: Path) -> dict[str, tuple[int, int]]:
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {each["Name"]: (int(each["Request Count"]), int(each["Failure Count"])) for each in rows}


@pytest.mark.parametrize(("protocol", "method"), [("grpc", "gRPC"), ("http", "HTTP")])
def test_a_run_succeeds_and_writes_its_reports(
    server: EmbeddedServer, protocol: str, method: str, tmp_path: Path
) -> None:
    host = url(server, protocol)
    reports = ["--csv", str(tmp_path / "run"), "--html", str(tmp_path / "run.html")]
    result = locust(*BRIEFLY, *reports, "--host", host)
    assert result.returncode == 0, result.stdout
    counts = counted(tmp_path / "run_stats.csv")
    assert set(counts) == {"64x48", "120x90", "Aggregated"}
    assert all(requests > 0 and failures == 0 for requests, failures in counts.values())
    page = (tmp_path / "run.html").read_text()
    assert "120x90" in page
    assert f'"{method}"' in page


def test_broken_images_count_as_successes_when_they_are_refused(
    server: EmbeddedServer, protocol: str
) -> None:
    result = locust(*BRIEFLY, "--host", url(server, protocol), "--broken", "0.5", "--batch-size=3")
    assert result.returncode == 0, result.stdout
    for name in ("3 images", "broken image"):
        sent, failed = row(result.stdout, name)
        assert sent > 0
        assert failed == 0


def test_a_missed_threshold_sets_the_exit_code_and_says_which(server: EmbeddedServer) -> None:
    limits = ["--max-error-rate", "0", "--max-p99-ms", "0.001"]
    result = locust(*BRIEFLY, *limits, "--host", url(server, "http"), "--processes", "2")
    assert result.returncode == 1
    (line,) = [line for line in result.stdout.splitlines() if "threshold missed" in line]
    assert re.search(r"p99 \S+ ms is above 0\.001 ms$", line)


class Moody(BaseHTTPRequestHandler):
    """Answers well while a test warms up, and then well, overloaded, wrong, and late in turn."""

    protocol_version = "HTTP/1.1"
    numbers = itertools.count()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        number = next(self.numbers)
        mood = "well" if number < 4 else ("well", "overloaded", "wrong", "gone")[number % 4]
        if mood == "gone":
            self.close_connection = True
            return
        self.answer(mood)

    def answer(self, mood: str) -> None:
        best = 7 if mood == "wrong" else 3
        values = {"CLASS_ID": [best, 1], "PROBABILITY": [0.9, 0.1], "LABEL": ["one", "another"]}
        types = {"CLASS_ID": "INT32", "PROBABILITY": "FP32", "LABEL": "BYTES"}
        outputs = [
            {"name": name, "datatype": types[name], "shape": [1, 2], "data": data}
            for name, data in values.items()
        ]
        overloaded = mood == "overloaded"
        body = json.dumps({"error": "too much"} if overloaded else {"outputs": outputs}).encode()
        self.send_response(503 if overloaded else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


def test_each_kind_of_failure_has_a_name_of_its_own(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Moody) as moody:
        threading.Thread(target=moody.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{moody.server_port}"
        reports = ["--csv", str(tmp_path / "run"), "--top-k", "2", "--max-error-rate", "0.1"]
        result = locust(*BRIEFLY, *reports, "--host", host)
        moody.shutdown()
    assert result.returncode == 1
    assert "threshold missed: error rate" in result.stdout
    said = (tmp_path / "run_failures.csv").read_text()
    for name in ("Overloaded('503: too much')", "another top class", "Unreachable("):
        assert name in said
    assert "Traceback" not in result.stdout


def test_a_broken_image_that_is_answered_is_a_failure(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Content) as content:
        threading.Thread(target=content.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{content.server_port}"
        result = locust(*BRIEFLY, "--top-k", "2", "--broken", "0.5", "--host", host)
        content.shutdown()
    assert result.returncode == 1
    sent, failed = row(result.stdout, "broken image")
    assert sent == failed > 0


class Content(Moody):
    """Answers everything well."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer("well")


def test_a_run_within_its_thresholds_succeeds(server: EmbeddedServer) -> None:
    limits = ["--max-error-rate", "0", "--max-p99-ms", "60000"]
    result = locust(*BRIEFLY, *limits, "--host", url(server, "grpc"))
    assert result.returncode == 0, result.stdout
    assert "threshold missed" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "fish"], "Request for unknown model: 'fish' is not found"),
        (["--top-k", "11"], "top_k must be a whole number from 1 to 10"),
        (["--host", "grpc://127.0.0.1:9"], "failed to connect to all addresses"),
        (["--host", "ftp://127.0.0.1"], "'ftp://127.0.0.1' is no URL of a server"),
        (["GrpcUser", "--host", "http://127.0.0.1"], "does not go with protocol grpc"),
        (["--steps", "1,2", "-u", "3"], "--steps does not go with -u"),
        (["--sizes", "large"], "'large' is no size"),
    ],
)
def test_what_cannot_be_is_one_line(
    server: EmbeddedServer, arguments: list[str], said: str
) -> None:
    result = locust("--headless", "-t", "1", "--host", url(server, "grpc"), *arguments)
    assert result.returncode != 0
    (line,) = [line for line in result.stdout.splitlines() if "error:" in line]
    assert said in line
    assert "Traceback" not in result.stdout


def test_steps_report_the_knee(server: EmbeddedServer, tmp_path: Path) -> None:
    reports = ["--csv", str(tmp_path / "steps"), "--html", str(tmp_path / "steps.html")]
    result = locust(*STEPS, *reports, "--host", url(server, "grpc"))
    assert result.returncode == 0, result.stdout
    assert_steps(result.stdout)
    assert counted(tmp_path / "steps_stats.csv")["Aggregated"][0] > 0
    assert (tmp_path / "steps.html").stat().st_size > 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_steps_go_with_several_processes(server: EmbeddedServer, protocol: str) -> None:
    result = locust(*STEPS, "--processes", "2", "--host", url(server, protocol))
    assert result.returncode == 0, result.stdout
    assert_steps(result.stdout)


def assert_steps(said: str) -> None:
    head = re.search(r"^ *users +req/s.*\n", said, re.MULTILINE)
    assert head, said
    table = said[head.end() :].splitlines()
    one, two = (line.split() for line in table[:2])
    assert (one[0], two[0]) == ("1", "2")
    assert float(one[1]) > 0
    assert float(two[1]) > 0
    assert "knee" in table[2]


def test_the_web_page_shows_the_options_runs_a_test_and_refuses_what_cannot_be(
    server: EmbeddedServer,
) -> None:
    port = Endpoints.free().http
    arguments = [*SMALL, "--web-port", str(port), "--web-host", "127.0.0.1"]
    with subprocess.Popen(
        [*LOCUST, *arguments, "--host", url(server, "grpc")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            form_is_complete_and_works(f"http://127.0.0.1:{port}", url(server, "http"))
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=30)
    assert "Traceback" not in said


def form_is_complete_and_works(address: str, host: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        page = waited_for(session, address)
        for name in ("model", "sizes", "batch_size", "top_k", "broken", "steps", "step_seconds"):
            assert f'"{name}"' in page
        assert "max_p99_ms" not in page
        form = {"user_count": "2", "spawn_rate": "100", "host": host, "model": "birds"}
        refused = session.post(f"{address}/swarm", data=form | {"top_k": "none"}).json()
        assert refused["message"] == "--top-k: 'none' is no whole number"
        refused = session.post(f"{address}/swarm", data=form | {"model": "fish"}).json()
        assert "unknown model: 'fish'" in refused["message"]
        assert session.post(f"{address}/swarm", data=form | {"top_k": "2"}).json()["success"]
        assert "HTTP" in methods(session, address)
        assert session.post(f"{address}/stop").json()["success"]


def waited_for(session: requests.Session, address: str) -> str:
    for _ in range(100):
        try:
            return session.get(address, timeout=5).text
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError(f"nothing answers at {address}")


def methods(session: requests.Session, address: str) -> set[str]:
    """What the requests so far were sent by, once there are some."""
    for _ in range(100):
        stats = session.get(f"{address}/stats/requests", timeout=5).json()["stats"]
        if any(each["num_requests"] for each in stats):
            return {each["method"] for each in stats}
        time.sleep(0.1)
    return set()
