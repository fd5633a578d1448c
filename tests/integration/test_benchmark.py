"""`python -m scripts.benchmark`, for a moment; no figure is asserted but that there is one."""

import itertools
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from scripts import benchmark
from scripts.embedded import EmbeddedServer, Endpoints, ServerError
from scripts.measuring import report
from scripts.measuring.wrk import Request, Wrk
from tests.integration.conftest import HASTE

pytestmark = pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")

QUICK = ["--models", "birds", "--seconds", "0.5", "--rounds", "1"]


@pytest.fixture(scope="module")
def measured(small_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a run of the command fills."""
    folder = tmp_path_factory.mktemp("benchmark")
    where = ["--model-repository", str(small_repository), "--output", str(folder)]
    assert benchmark.main([*QUICK, *where, "--clients", "1,2"]) == 0
    return folder


def test_it_measures_everything_of_a_model(measured: Path) -> None:
    content = json.loads((measured / "benchmark.json").read_text())
    (one,) = content["rounds"]["birds"]
    assert {what: len(loads) for what, loads in one["loads"].items()} == {
        "model only": 2,
        "ensemble": 2,
    }
    loads = [load for each in one["loads"].values() for load in each]
    assert all(0 < load["p50"] <= load["p99"] and load["rate"] > 0 for load in loads)
    steps = list(one["inside"]["steps"])
    assert ("preprocess" in steps[0], steps[1]) == (True, "birds_pixels")
    assert list(one["inside"]["cpu_ms"]) == ["tritonserver", *steps]
    assert one["limit"]["rate"] > 0
    assert one["overload"]["rate"] > 0
    assert one["overload"]["failed"] == 0
    ratios = content["medians"]["birds"]["ratios"]
    assert all(value >= 0 for value in ratios.values())


def test_the_picture_can_be_looked_at(measured: Path) -> None:
    with Image.open(measured / "benchmark.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) >= 500


def test_what_it_writes_can_be_read_again(measured: Path, tmp_path: Path) -> None:
    file = measured / "benchmark.json"
    report.read(file).write(tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(file.read_text())


def test_a_running_server_is_measured_and_compared(
    small_repository: Path,
    measured: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    endpoints = Endpoints.free()
    options = [*QUICK, "--model-repository", str(small_repository), "--output", str(tmp_path)]
    options += ["--compare", str(measured / "benchmark.json"), "--clients", "1"]
    with EmbeddedServer(small_repository, endpoints=endpoints, arguments=HASTE):
        for protocol in ("http", "grpc"):
            options += [f"--{protocol}", f"127.0.0.1:{endpoints.ports[protocol]}"]
        assert benchmark.main(options) == 0
    said = capsys.readouterr().out
    assert "birds: before and after" in said
    assert said.count("ensemble, 1 clients / limit") == 1
    (one,) = json.loads((tmp_path / "benchmark.json").read_text())["rounds"]["birds"]
    assert one["inside"]["cpu_ms"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--models", "planes"], "has no classifier planes, but birds"),
        (["--models", "birds", "--http", "127.0.0.1:9", "--grpc", "127.0.0.1:9"], "no Triton"),
        (["--models", "birds", "--compare", "nowhere.json"], "nowhere.json"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    small_repository: Path,
    tmp_path: Path,
    options: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = ["--model-repository", str(small_repository), "--output", str(tmp_path)]
    assert benchmark.main([*options, *where, "--seconds", "0.5", "--rounds", "1"]) == 1
    said = capsys.readouterr().err
    assert reason in said
    assert "Traceback" not in said


class Moody(BaseHTTPRequestHandler):
    """Answers what the path of the model asks for, with the request's own id."""

    protocol_version = "HTTP/1.1"
    count = itertools.count()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        refuse = "/full/" in self.path or ("/busy/" in self.path and next(self.count) % 2)
        answer = b"full [request id: " + body + b"]" if refuse else b'{"id":"' + body + b'"}'
        self.send_response(503 if refuse else 500 if "/broken/" in self.path else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def wrk() -> Iterator[Wrk]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Wrk(f"127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def test_refusals_are_told_from_answers(wrk: Wrk) -> None:
    overload = wrk.open_loop(Request("busy", b"id-00000000", 11), rate=100, seconds=0.5)
    assert 0 < overload.refused < 1
    assert overload.failed == 0
    assert None not in {overload.p50, overload.p99, overload.refusal_p50}


def test_an_open_loop_offers_what_it_is_told_to(wrk: Wrk) -> None:
    overload = wrk.open_loop(Request("busy", b"id-00000000", 11), rate=200, seconds=1.75)
    assert overload.offered == pytest.approx(200, rel=0.25)


def test_where_nothing_is_answered_there_is_no_latency(wrk: Wrk) -> None:
    overload = wrk.open_loop(Request("full", b"id-00000000", 11), rate=100, seconds=0.5)
    assert (overload.refused, overload.rate, overload.p50, overload.p99) == (1, 0, None, None)


@pytest.mark.parametrize(
    ("model", "reason"), [("broken", "500"), ("full", "503 full"), ("busy", "503 full")]
)
def test_a_failure_is_quoted(wrk: Wrk, model: str, reason: str) -> None:
    with pytest.raises(ServerError, match=f"{model} failed with 2 clients: {reason}"):
        wrk.closed_loop(Request(model, b"any", 0), clients=2, seconds=0.5)


def test_a_server_that_is_gone_is_one_line() -> None:
    with pytest.raises(ServerError, match="wrk failed: unable to connect"):
        Wrk("127.0.0.1:9").closed_loop(Request("birds", b"any", 0), clients=1, seconds=0.5)
