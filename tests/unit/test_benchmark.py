"""What the benchmark computes, writes and draws, from given numbers."""

import argparse
import io
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from rich.console import Console

from scripts import arguments, benchmark
from scripts.embedded import ServerError
from scripts.measuring import chart, perf_analyzer, report, rounds, tables, workers, wrk
from scripts.measuring.figures import BenchmarkPlan, Figures, knee, load_id, prefixed
from scripts.measuring.pictures import picture
from scripts.measuring.report import Machine, Report, Setup
from scripts.measuring.subject import Build
from scripts.measuring.workers import WorkerTurn
from scripts.repository.graphs import engines
from scripts.repository.steps.preprocess import imaging
from scripts.repository.steps.preprocess.recipe import Recipe
from tests.conftest import ROOT
from tests.graphs import FLEXIBLE, classifier

BASELINE = ("rate", "graph_rate", "p50_ms", "preprocess_cpu_ms")


def baseline(*values: float) -> Figures:
    return dict(zip(BASELINE, values, strict=True))


def one_round(bound: float = 40.0) -> Figures:
    overload = {"rate": 9.0, "refused_share": 0.75, "failed_share": 0.0, "p50_ms": 20.0}
    figures = prefixed("overload", overload)
    for name, values in {
        "upper_bound": baseline(bound, 1.5 * bound, 12.5, 1.25),
        "openvino": baseline(bound, 1.5 * bound, 12.5, 1.25),
        "onnxruntime": baseline(0.75 * bound, bound, 12.5, 1.25),
        "baseline": baseline(0.5 * bound, 1.5 * bound, 25.0, 2.0),
        "upper_bound_alone": baseline(0.5 * bound, 0.75 * bound, 1.0, 1.5),
        "openvino_alone": baseline(0.5 * bound, 0.75 * bound, 1.0, 1.5),
        "onnxruntime_alone": baseline(0.5 * bound, 0.75 * bound, 1.25, 1.5),
        "baseline_alone": baseline(0.25 * bound, 0.75 * bound, 1.6, 2.5),
    }.items():
        figures |= prefixed(name, values)
    for series, scale in (("model_http", 2.0), ("ensemble_http", 1.0), ("other_http", 0.5)):
        for n in (1, 8):
            load = {"rate": scale * (10 + n), "p50_ms": 2.0 * n, "p99_ms": 3.0 * n}
            figures |= prefixed(load_id(series, n), load)
    return figures


# An engine that is slower than the other one serves the model.
SETUP = Setup(
    Build("onnxruntime", "bf16"),
    {"baseline": "fp32", "onnxruntime": "fp32", "openvino": "bf16"},
    other=Build("openvino", "int8"),
)


def a_report(*bounds: float, models: tuple[str, ...] = ("birds",), setup: Setup = SETUP) -> Report:
    return Report(
        machine=Machine("a CPU", 2, {"numpy": "1.26.4"}),
        plan=BenchmarkPlan(seconds=0.5, rounds=len(bounds), clients=(1, 8)),
        rounds=dict.fromkeys(models, tuple(map(one_round, bounds))),
        setups=dict.fromkeys(models, setup),
    )


def without_engine(engine: str, result: Report) -> Report:
    """Remove the figures of an engine that was not run."""
    rounds = {
        model: tuple({k: v for k, v in each.items() if not k.startswith(engine)} for each in rounds)
        for model, rounds in result.rounds.items()
    }
    return replace(result, rounds=rounds)


def test_ratios_are_computed_within_a_round_and_medians_over_rounds() -> None:
    ratios = report.medians(a_report(20.0, 40.0, 80.0).ratios("birds"))
    assert ratios["ensemble_http_8_clients_rate_to_upper_bound"] == 18 / 40
    assert ratios["ensemble_http_8_clients_rate_to_own_engine"] == 18 / 30
    assert ratios["ensemble_http_8_clients_rate_to_baseline"] == 18 / 20
    assert ratios["ensemble_http_8_clients_rate_to_other"] == 2.0
    assert ratios["ensemble_http_8_clients_p50_ms_to_other"] == 1.0
    assert ratios["ensemble_http_8_clients_p99_ms_to_other"] == 1.0
    assert ratios["ensemble_peak_to_upper_bound"] == 18 / 40
    assert ratios["model_peak_to_graph_only"] == 36 / 60
    assert ratios["ensemble_http_1_clients_p99_to_p50"] == 1.5
    assert ratios["one_client_p50_to_upper_bound"] == 2.0
    assert ratios["one_client_p50_to_own_engine"] == 1.6
    assert ratios["one_client_p50_to_baseline"] == 1.25
    assert ratios["preprocess_to_baseline"] == 0.625
    assert ratios["overload_rate_to_peak"] == 0.5
    assert ratios["overload_refused_share"] == 0.75
    assert "overload_p99_to_p50" not in ratios


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = a_report(20.0, 40.0)
    written.write(tmp_path / "benchmark.json")
    assert report.read(tmp_path / "benchmark.json") == written
    medians = json.loads((tmp_path / "benchmark.json").read_text())["medians"]["birds"]
    assert medians["upper_bound"] == "openvino"
    assert medians["ratios"] == report.medians(written.ratios("birds"))
    assert medians["figures"]["upper_bound_rate"] == 30.0


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"machine": {}, "plan": 4, "rounds": {}}', '{"machine": 1}']
)
def test_another_file_is_rejected(tmp_path: Path, content: str) -> None:
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(ServerError, match=r"other\.json is not a benchmark report"):
        report.read(tmp_path / "other.json")


def test_a_report_with_an_invalid_number_is_rejected(tmp_path: Path) -> None:
    a_report(20.0).write(tmp_path / "benchmark.json")
    content = json.loads((tmp_path / "benchmark.json").read_text())
    content["plan"]["rounds"] = "many"
    (tmp_path / "benchmark.json").write_text(json.dumps(content))
    with pytest.raises(ServerError, match="'many'"):
        report.read(tmp_path / "benchmark.json")


def test_the_published_report_is_readable() -> None:
    published = report.read(ROOT / "docs" / "benchmark.json")
    assert set(published.rounds) == {"resnet50_v1", "mobilenetv2"}
    for model in published.rounds:
        assert report.compare(published, published, model)


def test_reports_are_compared_by_their_ratios() -> None:
    before, after = a_report(40.0), a_report(20.0)
    changes = report.compare(before, after, "birds")
    assert changes["ensemble_http_8_clients_rate_to_upper_bound"] == (18 / 40, 18 / 20)
    assert changes["preprocess_to_baseline"] == (0.625, 0.625)
    assert report.compare(before, after, "planes") == {}


def test_tables_show_every_load_and_every_ratio() -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    result = a_report(20.0, 40.0)
    console.print(*tables.of_model(result, "birds"))
    console.print(tables.comparison(result, result, "birds"))
    output = " ".join(console.export_text().split())
    assert "…" not in output
    assert "step's code, onnxruntime fp32 22.5 30.0 1.2" in output
    assert "step's code, OpenVINO bf16 (upper bound) 30.0 45.0 1.0" in output
    assert "birds: onnxruntime bf16 / the other build, openvino int8" in output
    assert "model only 8 36.0 2.700 1.350 1.800 16.0 24.0 1.500" in output
    assert "ensemble 8 18.0 9.0 2.000 1.000 1.000" in output
    assert "overload: share of requests failed" in output


NOT_INSTALLED = "OpenVINO, which may be faster, was not run: pip install openvino"
WITHOUT_BF16 = "this CPU has no bf16, so OpenVINO computed in fp32"


@pytest.mark.parametrize(
    ("precision", "loops", "note"),
    [
        ("bf16", {"onnxruntime": "fp32", "openvino": "bf16"}, ""),
        ("bf16", {"onnxruntime": "fp32", "openvino": "fp32"}, WITHOUT_BF16),
        ("fp32", {"onnxruntime": "fp32"}, NOT_INSTALLED),
        ("bf16", {"onnxruntime": "fp32"}, NOT_INSTALLED),
    ],
)
def test_a_table_says_what_its_upper_bound_lacks(
    precision: str, loops: dict[str, str], note: str
) -> None:
    setup = Setup(Build("openvino", precision), {"baseline": "fp32"} | loops)
    bare, *_ = tables.of_model(a_report(20.0, setup=setup), "birds")
    assert bare.caption == note


def test_a_server_without_a_bare_loop_of_its_engine_has_no_ratio_to_it() -> None:
    setup = Setup(Build("openvino", "fp32"), {"baseline": "fp32", "onnxruntime": "fp32"})
    result = without_engine("openvino", a_report(20.0, setup=setup))
    _, served, *_ = tables.of_model(result, "birds")
    assert set(served.columns[5].cells) == {"-"}


def test_a_report_of_an_older_version_is_compared_with_a_new_one(tmp_path: Path) -> None:
    written = without_engine("onnxruntime", without_engine("openvino", a_report(20.0)))
    replace(written, setups={}).write(tmp_path / "older.json")
    content = json.loads((tmp_path / "older.json").read_text())
    del content["setups"]
    (tmp_path / "older.json").write_text(json.dumps(content))
    older, now = report.read(tmp_path / "older.json"), a_report(20.0)
    changes = report.compare(older, now, "birds")
    assert changes["ensemble_peak_to_upper_bound"] == (18 / 20, 18 / 20)
    assert "one_client_p50_to_own_engine" not in changes
    title = str(tables.comparison(older, now, "birds").title)
    assert "upper bound onnxruntime) and after (onnxruntime bf16, upper bound openvino)" in title


@pytest.mark.parametrize("models", [("birds",), ("birds", "planes")])
def test_the_chart_has_a_column_for_each_model(tmp_path: Path, models: tuple[str, ...]) -> None:
    chart.draw(a_report(20.0, 40.0, models=models), tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as image:
        image.load()
        assert image.format == "PNG"
        assert image.width >= 600 * len(models)
        assert image.height >= 800
        assert len(image.convert("L").getcolors() or []) > 10


def test_the_output_of_the_script_is_found_in_the_output_of_wrk() -> None:
    output = wrk.parse('Running 2s test\n  4 requests\n{"rate": 2.5, "p50_ms": null}\n', "")
    assert output == {"rate": 2.5, "p50_ms": None}


@pytest.mark.parametrize(
    ("stdout", "stderr", "reason"),
    [
        ("Running", "unable to connect\n", "wrk failed: unable to connect"),
        ("", "", "wrk failed: no output"),
    ],
)
def test_a_wrk_failure_quotes_its_last_line(stdout: str, stderr: str, reason: str) -> None:
    with pytest.raises(ServerError, match=reason):
        wrk.parse(stdout, stderr)


def test_a_missing_wrk_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match="wrk is not installed; run: apt-get install wrk"):
        wrk.Wrk("localhost:8000")


def test_the_mean_latency_of_perf_analyzer_is_read_in_seconds() -> None:
    output = "  Client:\n    Avg latency: 48579 usec (standard deviation 13991 usec)\n"
    assert perf_analyzer.mean_seconds(output, "") == 0.048579
    with pytest.raises(ServerError, match="perf_analyzer failed: Client:"):
        perf_analyzer.mean_seconds("  Client:\n", "")


def test_the_turns_of_workers_are_combined() -> None:
    one = WorkerTurn(images=(0.25, 0.25), preprocess_cpu=0.125, graph=0.25)
    other = WorkerTurn(images=(0.5, 0.5), preprocess_cpu=0.375, graph=0.5)
    assert workers.summary([one, other]) == baseline(6.0, 12.0, 375.0, 125.0)


def test_the_upper_bound_of_a_round_is_the_mean_of_its_turns() -> None:
    one, other = baseline(10.0, 20.0, 4.0, 1.0), baseline(30.0, 40.0, 8.0, 2.0)
    assert rounds.mean([one, other]) == baseline(20.0, 30.0, 6.0, 1.5)


def test_the_knee_is_where_latency_begins_to_grow_faster_than_throughput() -> None:
    rates = {1: 90.0, 2: 140.0, 4: 170.0, 8: 190.0}
    assert knee([(rate, clients / rate) for clients, rate in rates.items()]) == 1


def test_the_baseline_computes_the_same_pixels_as_the_step() -> None:
    image = picture((640, 480))
    ours, plain = (
        np.asarray(preprocess(image, Recipe())).astype(int)
        for preprocess in (imaging.load, workers.with_pillow)
    )
    assert np.abs(ours - plain).max() <= 2


def test_both_engines_run_in_the_precision_of_the_graph() -> None:
    loops = workers.loops("int8")
    assert list(loops) == ["baseline", *engines.installed()]
    assert {loop.precision for loop in loops.values()} == {"int8"}
    assert loops["baseline"].engine == "onnxruntime"


def test_only_openvino_runs_in_bf16_if_the_cpu_has_it() -> None:
    precisions = {name: loop.precision for name, loop in workers.loops("bf16").items()}
    bf16 = "bf16" if engines.has_bfloat16() else "fp32"
    assert precisions == {"baseline": "fp32", "onnxruntime": "fp32", "openvino": bf16}


PIXELS = """
    floats = Cast<to = 1>(image)
    planes = Transpose<perm = [0, 3, 1, 2]>(floats)
"""


def test_workers_run_every_loop_also_after_an_error(tmp_path: Path) -> None:
    file, loops = tmp_path / "birds.onnx", workers.loops("fp32")
    with closing(workers.Workers(file, Recipe(), picture((64, 48)))) as pool:
        with pytest.raises(ServerError, match=r"a benchmark worker failed: .*birds\.onnx"):
            pool.measure(loops["baseline"], 0.01, alone=True)
        body = PIXELS + FLEXIBLE.replace("(image)", "(planes)")
        onnx.save(classifier(body, image="uint8[1,224,224,3]"), file)
        for loop in loops.values():
            figures = pool.measure(loop, 0.01, alone=True)
            assert figures["graph_rate"] > figures["rate"] > 0


@pytest.mark.parametrize(("text", "clients"), [("8", (8,)), ("16,1,8,1", (1, 8, 16))])
def test_numbers_of_clients_are_sorted(text: str, clients: tuple[int, ...]) -> None:
    assert benchmark.clients(text) == clients


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf"])
def test_a_duration_must_be_above_zero(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be a finite number above 0"):
        arguments.seconds(text)
