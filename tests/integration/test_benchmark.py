"""`python -m scripts.benchmark` with short turns; asserts that figures exist, not their values."""

import itertools
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import onnx
import pytest
from PIL import Image

from scripts import benchmark
from scripts.embedded import EmbeddedServer, ServerError
from scripts.measuring import report
from scripts.measuring.wrk import InferRequest, Wrk
from scripts.repository import builder, sources
from scripts.repository.tuning import Tuning
from tests.descriptions import said
from tests.graphs import FLEXIBLE, classifier

pytestmark = pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")

QUICK = ["--models", "birds", "--seconds", "0.2", "--rounds", "1"]


@pytest.fixture(scope="module")
def measured(small_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of one run, which compares OpenVINO with onnxruntime."""
    folder = tmp_path_factory.mktemp("benchmark")
    repository, file = folder / "model_repository", folder / "birds.onnx"
    onnx.save(classifier(FLEXIBLE), file)
    source = sources.from_file(file, "birds", said())
    builder.add(repository, source, tuning=Tuning(engine="openvino"))
    where = ["--model-repository", str(repository), "--output", str(folder)]
    where += ["--against", str(small_repository)]
    assert benchmark.main([*QUICK, *where, "--clients", "1,2"]) == 0
    return folder


def test_all_figures_of_a_model_are_measured(measured: Path) -> None:
    content = json.loads((measured / "benchmark.json").read_text())
    (one,) = content["rounds"]["birds"]
    for series in ("model_http", "ensemble_http", "other_http"):
        for load in (f"{series}_{clients}_clients" for clients in (1, 2)):
            assert 0 < one[f"{load}_p50_ms"] <= one[f"{load}_p99_ms"]
            assert one[f"{load}_rate"] > 0
    for name in ("baseline", "onnxruntime", "openvino", "upper_bound"):
        for bare in (name, f"{name}_alone"):
            assert one[f"{bare}_rate"] > 0
            assert one[f"{bare}_preprocess_cpu_ms"] > 0
    assert one["upper_bound_rate"] == max(one["onnxruntime_rate"], one["openvino_rate"])
    assert one["overload_rate"] > 0
    assert one["overload_failed_share"] == 0
    medians = content["medians"]["birds"]
    assert one["upper_bound_rate"] == one[f"{medians['upper_bound']}_rate"]
    assert all(value >= 0 for value in medians["ratios"].values())
    targets = ("rate_to_own_engine", "rate_to_other", "p50_ms_to_other", "p99_ms_to_other")
    assert medians["ratios"].keys() >= {f"ensemble_http_2_clients_{name}" for name in targets}
    assert "one_client_p50_to_own_engine" in medians["ratios"]


def test_the_report_names_engines_and_precisions(measured: Path) -> None:
    setup = report.read(measured / "benchmark.json").setup("birds")
    assert (str(setup.build), str(setup.other)) == ("openvino fp32", "onnxruntime fp32")
    assert setup.loops == dict.fromkeys(("baseline", "onnxruntime", "openvino"), "fp32")


def test_the_chart_is_a_readable_image(measured: Path) -> None:
    with Image.open(measured / "benchmark.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) >= 500


def test_the_report_can_be_read_and_written_again(measured: Path, tmp_path: Path) -> None:
    file = measured / "benchmark.json"
    report.read(file).write(tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(file.read_text())


def test_a_running_server_is_measured_and_compared(
    small_repository: Path,
    keyed: EmbeddedServer,
    measured: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [*QUICK, "--model-repository", str(small_repository), "--output", str(tmp_path)]
    options += ["--compare", str(measured / "benchmark.json"), "--clients", "1"]
    assert benchmark.main([*options, "--http", keyed.endpoints.at("http")]) == 0
    output = capsys.readouterr().out
    assert "birds: before (openvino fp32, upper bound " in output
    assert output.count("ensemble_http_1_clients_rate_to_upper_bound") == 1
    (one,) = json.loads((tmp_path / "benchmark.json").read_text())["rounds"]["birds"]
    assert one["ensemble_http_1_clients_rate"] > 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--models", "planes"], "has birds, not planes; choose with --models"),
        (["--models", "birds", "--http", "127.0.0.1:9"], "no Triton"),
        (["--models", "birds", "--compare", "nowhere.json"], "nowhere.json"),
        (["--models", "birds", "--against", "nowhere"], "nowhere has no classifier, not birds"),
    ],
)
def test_errors_are_one_line(
    small_repository: Path,
    tmp_path: Path,
    options: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = ["--model-repository", str(small_repository), "--output", str(tmp_path)]
    assert benchmark.main([*options, *where, "--seconds", "0.5", "--rounds", "1"]) == 1
    output = capsys.readouterr().err
    assert reason in output
    assert "Traceback" not in output


class Backend(BaseHTTPRequestHandler):
    """Responds by the model's name in the path, with the id of the request."""

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
        """Suppress the log."""


@pytest.fixture(scope="module")
def wrk() -> Iterator[Wrk]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Wrk(f"127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def test_refusals_are_counted_apart_from_answers(wrk: Wrk) -> None:
    overload = wrk.open_loop(InferRequest("busy", b"id-00000000", 11), rate=100, seconds=0.5)
    assert 0 < overload["refused_share"] < 1
    assert overload["failed_share"] == 0
    assert {"p50_ms", "p99_ms", "refusal_p50_ms"} <= overload.keys()


def test_an_open_loop_offers_the_requested_rate(wrk: Wrk) -> None:
    overload = wrk.open_loop(InferRequest("busy", b"id-00000000", 11), rate=200, seconds=1.75)
    assert overload["offered_rate"] == pytest.approx(200, rel=0.25)


def test_there_is_no_latency_without_answers(wrk: Wrk) -> None:
    overload = wrk.open_loop(InferRequest("full", b"id-00000000", 11), rate=100, seconds=0.5)
    assert (overload["refused_share"], overload["rate"]) == (1, 0)
    assert not {"p50_ms", "p99_ms"} & overload.keys()


@pytest.mark.parametrize(
    ("model", "reason"), [("broken", "500"), ("full", "503 full"), ("busy", "503 full")]
)
def test_a_failure_quotes_the_response(wrk: Wrk, model: str, reason: str) -> None:
    with pytest.raises(ServerError, match=f"{model} failed with 2 clients: {reason}"):
        wrk.closed_loop(InferRequest(model, b"any", 0), clients=2, seconds=0.5)


def test_a_missing_server_is_one_line() -> None:
    with pytest.raises(ServerError, match="wrk failed: unable to connect"):
        Wrk("127.0.0.1:9").closed_loop(InferRequest("birds", b"any", 0), clients=1, seconds=0.5)
