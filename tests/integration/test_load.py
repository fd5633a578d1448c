"""The Locust file as a real Locust process, against a real server."""

import csv
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests

from scripts.embedded import EmbeddedServer, Endpoints
from tests.conftest import ROOT
from tests.integration.conftest import PROTOCOLS, url
from tests.web import serving

LOCUST = [sys.executable, "-m", "locust", "-f", "tests/load/locustfile.py"]
SMALL = ["--model", "birds", "--sizes", "64x48,120x90"]
BRIEFLY = ["--headless", "--only-summary", "-u", "2", "-r", "100", "-t", "1"]
STEPS = ["--headless", "--only-summary", "--steps", "1,2", "--step-seconds", "1"]


def locust(*arguments: str) -> subprocess.CompletedProcess[str]:
    port = str(Endpoints.free().http)  # of the master, for its workers
    workers = {"LOCUST_MASTER_BIND_PORT": port, "LOCUST_MASTER_NODE_PORT": port}
    return subprocess.run(
        [*LOCUST, *SMALL, *arguments],
        cwd=ROOT,
        env=os.environ | workers | {"LOCUST_MASTER_BIND_HOST": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # Locust prints its tables there
        text=True,
        check=False,
        timeout=60,
    )


def row(output: str, name: str) -> tuple[int, int]:
    """Return the requests and failures in a row of Locust's table."""
    found = re.search(rf"^\s*\S* *{name} +(\d+) +(\d+)\(", output, re.MULTILINE)
    assert found, output
    return int(found[1]), int(found[2])


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def counted(file: Path) -> dict[str, tuple[int, int]]:
    rows = read_csv(file)
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
    assert "<td>--model</td><td>birds</td>" in page
    assert f"<td>--host</td><td>{host}</td>" in page
    assert "<h2>Knee</h2>" not in page
    assert not (tmp_path / "run_knee.csv").exists()
    assert f'"{method}"' in page


def test_refused_broken_images_count_as_successes(server: EmbeddedServer, protocol: str) -> None:
    result = locust(*BRIEFLY, "--host", url(server, protocol), "--broken", "0.5", "--batch-size=3")
    assert result.returncode == 0, result.stdout
    for name in ("3 images", "broken image"):
        sent, failed = row(result.stdout, name)
        assert sent > 0
        assert failed == 0


def test_a_missed_threshold_sets_the_exit_code_and_is_named(server: EmbeddedServer) -> None:
    limits = ["--max-error-rate", "0", "--max-p99-ms", "0.001"]
    result = locust(*BRIEFLY, *limits, "--host", url(server, "http"), "--processes", "2")
    assert result.returncode == 1
    (line,) = [line for line in result.stdout.splitlines() if "threshold missed" in line]
    assert re.search(r"p99 \S+ ms is above 0\.001 ms$", line)


class Unreliable(BaseHTTPRequestHandler):
    """Answers correctly during the warm-up; then also overloaded, wrong, or not at all, in turn."""

    protocol_version = "HTTP/1.1"
    numbers = itertools.count()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        number = next(self.numbers)
        kind = "correct" if number < 4 else ("correct", "overloaded", "wrong", "closed")[number % 4]
        if kind == "closed":
            self.close_connection = True
            return
        self.answer(kind)

    def answer(self, kind: str) -> None:
        best = 7 if kind == "wrong" else 3
        values = {"CLASS_ID": [best, 1], "PROBABILITY": [0.9, 0.1], "LABEL": ["one", "another"]}
        types = {"CLASS_ID": "INT32", "PROBABILITY": "FP32", "LABEL": "BYTES"}
        outputs = [
            {"name": name, "datatype": types[name], "shape": [1, 2], "data": data}
            for name, data in values.items()
        ]
        overloaded = kind == "overloaded"
        body = json.dumps({"error": "too much"} if overloaded else {"outputs": outputs}).encode()
        self.send_response(503 if overloaded else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_each_kind_of_failure_is_counted_apart(tmp_path: Path) -> None:
    with serving(Unreliable) as address:
        reports = ["--csv", str(tmp_path / "run"), "--top-k", "2", "--max-error-rate", "0.1"]
        result = locust(*BRIEFLY, *reports, "--host", f"http://{address}")
    assert result.returncode == 1
    assert "threshold missed: error rate" in result.stdout
    failures = (tmp_path / "run_failures.csv").read_text()
    for name in ("Overloaded('503: too much')", "another top class", "Unreachable("):
        assert name in failures
    assert "Traceback" not in result.stdout


class SlowAtFirst(Unreliable):
    """Takes half a second for each of the four requests of a warm-up with two sizes."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if next(self.numbers) < 4:
            time.sleep(0.5)
        self.answer("correct")


def test_the_warm_up_is_made_once_for_all_workers_and_before_the_run_time(tmp_path: Path) -> None:
    SlowAtFirst.numbers = itertools.count()
    with serving(SlowAtFirst) as address:
        reports = ["--csv", str(tmp_path / "run"), "--top-k", "2", "--processes", "2"]
        result = locust(*BRIEFLY, *reports, "--host", f"http://{address}")
    assert result.returncode == 0, result.stdout
    assert "Traceback" not in result.stdout
    sent, failed = counted(tmp_path / "run_stats.csv")["Aggregated"]
    assert failed == 0
    # Each request beyond the warm-up is one of the users'.
    assert next(SlowAtFirst.numbers) >= sent + 4 > 4


def test_a_broken_image_that_is_answered_is_a_failure(tmp_path: Path) -> None:
    with serving(Correct) as address:
        host = f"http://{address}"
        result = locust(*BRIEFLY, "--top-k", "2", "--broken", "0.5", "--host", host)
    assert result.returncode == 1
    sent, failed = row(result.stdout, "broken image")
    assert sent == failed > 0


class Correct(Unreliable):
    """Answers everything correctly."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer("correct")


def test_a_run_with_few_classes_within_its_thresholds_succeeds(server: EmbeddedServer) -> None:
    limits = ["--max-error-rate", "0", "--max-p99-ms", "60000"]
    result = locust(*BRIEFLY, *limits, "--model", "two_birds", "--host", url(server, "grpc"))
    assert result.returncode == 0, result.stdout
    assert "threshold missed" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "fish"], "Request for unknown model: 'fish' is not found"),
        (["--top-k", "11"], "top_k must be a whole number from 1 to 10"),
        (["--host", "grpc://127.0.0.1:9"], "failed to connect to all addresses"),
        (["--host", "ftp://127.0.0.1"], "ftp://127.0.0.1"),
        (["GrpcUser", "--host", "http://127.0.0.1"], "protocol grpc"),
        (["--steps", "1,2", "-u", "3"], "--steps does not go with -u"),
        (["--sizes", "large"], "'large' is not a size"),
    ],
)
def test_invalid_input_is_one_line(
    server: EmbeddedServer, arguments: list[str], message: str
) -> None:
    result = locust("--headless", "-t", "1", "--host", url(server, "grpc"), *arguments)
    assert result.returncode != 0
    (line,) = [line for line in result.stdout.splitlines() if "error:" in line]
    assert message in line
    assert "Traceback" not in result.stdout


def test_steps_report_the_knee(server: EmbeddedServer, tmp_path: Path) -> None:
    reports = ["--csv", str(tmp_path / "steps"), "--html", str(tmp_path / "steps.html")]
    result = locust(*STEPS, *reports, "--host", url(server, "grpc"))
    assert result.returncode == 0, result.stdout
    assert_steps(result.stdout)
    assert counted(tmp_path / "steps_stats.csv")["Aggregated"][0] > 0
    one, two = read_csv(tmp_path / "steps_knee.csv")
    assert (one["users"], two["users"]) == ("1", "2")
    assert float(one["rate"]) > 0
    assert {one["knee"], two["knee"]} <= {"0", "1"}
    page = (tmp_path / "steps.html").read_text()
    assert page.count("<h2>Load test</h2>") == page.count("<h2>Knee</h2>") == 1
    for cell in ("birds", "64x48,120x90", "1,2", one["rate"], two["p99_ms"]):
        assert f"<td>{cell}</td>" in page


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_steps_go_with_several_processes(server: EmbeddedServer, protocol: str) -> None:
    result = locust(*STEPS, "--processes", "2", "--host", url(server, protocol))
    assert result.returncode == 0, result.stdout
    assert_steps(result.stdout)


def assert_steps(output: str) -> None:
    head = re.search(r"^ *users +req/s.*\n", output, re.MULTILINE)
    assert head, output
    table = output[head.end() :].splitlines()
    one, two = (line.split() for line in table[:2])
    assert (one[0], two[0]) == ("1", "2")
    assert float(one[1]) > 0
    assert float(two[1]) > 0
    assert "knee" in table[2]


def test_the_web_page_runs_tests_rejects_invalid_options_and_shows_the_knee(
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
            use_web_page(f"http://127.0.0.1:{port}", url(server, "http"))
        finally:
            process.send_signal(signal.SIGTERM)
            _, output = process.communicate(timeout=30)
    assert "Traceback" not in output


def use_web_page(address: str, host: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        page = waited_for(session, address)
        for name in ("model", "sizes", "batch_size", "top_k", "broken", "steps", "step_seconds"):
            assert f'"{name}"' in page
        assert "max_p99_ms" not in page
        form = {"user_count": "2", "spawn_rate": "100", "host": host, "model": "birds"}
        refused = session.post(f"{address}/swarm", data=form | {"top_k": "none"}).json()
        assert refused["message"] == "--top-k: 'none' is not a whole number"
        refused = session.post(f"{address}/swarm", data=form | {"model": "fish"}).json()
        assert "unknown model: 'fish'" in refused["message"]
        assert session.post(f"{address}/swarm", data=form | {"top_k": "2"}).json()["success"]
        assert "HTTP" in methods(session, address)
        assert session.post(f"{address}/stop").json()["success"]
        assert knee_table(session, address) == []
        steps = form | {"steps": "1,2", "step_seconds": "1"}
        assert session.post(f"{address}/swarm", data=steps).json()["success"]
        rows = waited_for_knee(session, address, rows=2)
        assert [row["users"] for row in rows] == ["1", "2"]
        assert all(float(row["rate"]) > 0 for row in rows)
        lines = session.get(f"{address}/stats/knee/csv", timeout=5).text.splitlines()
        assert len(lines) == 3
        assert lines[1].startswith(f"1,{rows[0]['rate']},")
        report = session.get(f"{address}/stats/report?download=1", timeout=5).text
        assert f"<td>{rows[1]['rate']}</td>" in report
        assert "<td>--model</td><td>birds</td>" in report
        assert '"extended_tabs"' in session.get(address, timeout=5).text


def waited_for(session: requests.Session, address: str) -> str:
    for _ in range(100):
        try:
            return session.get(address, timeout=5).text
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError(f"no response at {address}")


def knee_table(session: requests.Session, address: str) -> list[dict[str, str]]:
    stats = session.get(f"{address}/stats/requests", timeout=5).json()["extended_stats"]
    (table,) = (each["data"] for each in stats if each["key"] == "knee")
    return list(table)


def waited_for_knee(session: requests.Session, address: str, rows: int) -> list[dict[str, str]]:
    for _ in range(300):
        table = knee_table(session, address)
        state = session.get(f"{address}/stats/requests", timeout=5).json()["state"]
        if len(table) == rows and state == "stopped":
            return table
        time.sleep(0.1)
    raise AssertionError("the steps did not end")


def methods(session: requests.Session, address: str) -> set[str]:
    """Return the methods of the requests so far, once there are some."""
    for _ in range(100):
        stats = session.get(f"{address}/stats/requests", timeout=5).json()["stats"]
        if any(each["num_requests"] for each in stats):
            return {each["method"] for each in stats}
        time.sleep(0.1)
    return set()
