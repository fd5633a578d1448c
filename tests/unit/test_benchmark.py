"""What the benchmark reads, works out, keeps and draws, from given numbers."""

import argparse
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from rich.console import Console

from scripts import benchmark
from scripts.embedded import ServerError
from scripts.measuring import (
    chart,
    limit,
    perf_analyzer,
    photograph,
    processes,
    report,
    rounds,
    tables,
    triton_statistics,
    wrk,
)
from scripts.measuring.figures import (
    Bare,
    Inside,
    Load,
    Overload,
    Photograph,
    Round,
    Settings,
    Step,
)
from scripts.measuring.limit import Turn
from scripts.measuring.machine import Machine
from scripts.measuring.pictures import picture
from scripts.measuring.report import Report
from scripts.repository.steps.preprocess.recipe import Recipe
from tests import reference

STEPS = ("imagenet_preprocess_256", "birds_pixels", "imagenet_postprocess")
PERF_ANALYZER = """\
Request concurrency: 8
  Client:
    Request count: 595
    Throughput: 163.742 infer/sec
    Avg latency: 48579 usec (standard deviation 13991 usec)
    p50 latency: 48785 usec
    p90 latency: 65948 usec
    p99 latency: 82361 usec
"""


def loads(scale: float) -> tuple[Load, ...]:
    return tuple(Load(n, scale * (10 + n), 2.0 * n, 3.0 * n) for n in (1, 8))


def one_round(limit_rate: float = 40.0) -> Round:
    return Round(
        limit=Bare(2, limit_rate, 1.5 * limit_rate, 12.5, 1.25),
        plain=Bare(2, 0.5 * limit_rate, 1.5 * limit_rate, 25.0, 2.0),
        alone=Bare(1, 0.5 * limit_rate, 0.75 * limit_rate, 1.0, 1.5),
        plain_alone=Bare(1, 0.25 * limit_rate, 0.75 * limit_rate, 1.6, 2.5),
        loads={"model only": loads(2.0), "ensemble": loads(1.0)},
        inside=Inside(
            8,
            {name: Step(0.5, 0.25, 4.0, 0.125, 1.5) for name in STEPS},
            {"tritonserver": 0.5, STEPS[0]: 2.5},
        ),
        overload=Overload(72.0, 9.0, 0.75, 0.0, 20.0, None, None),
        photograph=Photograph(5.0, 50.0),
    )


def a_report(*limit_rates: float, models: tuple[str, ...] = ("birds",)) -> Report:
    return Report(
        machine=Machine("a CPU", 2, {"numpy": "1.26.4"}, None),
        settings=Settings(seconds=0.5, rounds=len(limit_rates), clients=(1, 8)),
        rounds=dict.fromkeys(models, tuple(map(one_round, limit_rates))),
    )


def test_ratios_are_those_of_a_round_and_medians_those_of_rounds() -> None:
    ratios = report.medians(a_report(20.0, 40.0, 80.0).ratios("birds"))
    assert ratios["ensemble, 8 clients / limit"] == 18 / 40
    assert ratios["ensemble, 8 clients / plain loop"] == 18 / 20
    assert ratios["ensemble, its peak / limit"] == 18 / 40
    assert ratios["model only, its peak / the graph alone"] == 36 / 60
    assert ratios["ensemble, 1 clients: p99 / p50"] == 1.5
    assert ratios["one client's p50 / one worker's"] == 2.0
    assert ratios["one client's p50 / one plain worker's"] == 1.25
    assert ratios["preprocess step's CPU / its code's alone"] == 2.0
    assert ratios["preprocess step's CPU / Pillow's alone"] == 1.25
    assert ratios["large photograph: step / zoo's code"] == 0.1
    assert ratios["overload: answered / peak"] == 0.5
    assert ratios["overload: share refused"] == 0.75
    assert "overload: p99 / p50 of the answered" not in ratios


def test_what_cannot_be_seen_has_no_figure() -> None:
    one = one_round()
    hidden = replace(one, inside=replace(one.inside, cpu_ms={}))
    unseen = report.ratios(one).keys() - report.ratios(hidden).keys()
    assert unseen == {
        f"preprocess step's CPU / {whose} alone" for whose in ("its code's", "Pillow's")
    }
    assert "overload: p99" not in report.figures(one)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = a_report(20.0, 40.0)
    written.write(tmp_path / "benchmark.json")
    assert report.read(tmp_path / "benchmark.json") == written
    medians = json.loads((tmp_path / "benchmark.json").read_text())["medians"]["birds"]
    assert medians["ratios"] == report.medians(written.ratios("birds"))
    assert medians["figures"]["limit: images/s"] == 30.0


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"machine": {}, "settings": 4, "rounds": {}}', '{"machine": 1}']
)
def test_another_file_is_no_report(tmp_path: Path, content: str) -> None:
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(ServerError, match=r"other\.json is no report of this benchmark"):
        report.read(tmp_path / "other.json")


def test_a_number_that_is_none_is_no_report(tmp_path: Path) -> None:
    a_report(20.0).write(tmp_path / "benchmark.json")
    content = json.loads((tmp_path / "benchmark.json").read_text())
    content["settings"]["rounds"] = "many"
    (tmp_path / "benchmark.json").write_text(json.dumps(content))
    with pytest.raises(ServerError, match="'many' is not"):
        report.read(tmp_path / "benchmark.json")


def test_reports_are_compared_by_their_ratios() -> None:
    before, after = a_report(40.0), a_report(20.0)
    changes = report.compare(before, after, "birds")
    assert changes["ensemble, 8 clients / limit"] == (18 / 40, 18 / 20)
    assert changes["large photograph: step / zoo's code"] == (0.1, 0.1)
    assert report.compare(before, after, "planes") == {}


def test_tables_show_every_load_and_every_step() -> None:
    console = Console(width=120, file=io.StringIO(), record=True)
    result = a_report(20.0, 40.0)
    console.print(*tables.of_model(result, "birds"))
    console.print(tables.comparison(result, result, "birds"))
    said = console.export_text()
    assert "the limit is 30.0 images/s, 45.0 for the graph alone, 15.0 for the plain loop" in said
    assert all(name in said for name in (*STEPS, "model only", "ensemble", "tritonserver"))
    assert "overload: share failed" in said


@pytest.mark.parametrize("models", [("birds",), ("birds", "planes")])
def test_the_chart_is_a_picture_with_a_column_for_each_model(
    tmp_path: Path, models: tuple[str, ...]
) -> None:
    chart.draw(a_report(20.0, 40.0, models=models), tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as image:
        image.load()
        assert image.format == "PNG"
        assert image.width >= 600 * len(models)
        assert image.height >= 800
        assert len(image.convert("L").getcolors() or []) > 10


def test_what_the_script_prints_is_found_below_what_wrk_prints() -> None:
    said = wrk.parse('Running 2s test\n  4 requests\n{"rate": 2.5, "p50": null}\n', "")
    assert said == {"rate": 2.5, "p50": None}


@pytest.mark.parametrize(
    ("stdout", "stderr", "reason"),
    [
        ("Running", "unable to connect\n", "wrk failed: unable to connect"),
        ("", "", "it says nothing"),
    ],
)
def test_a_wrk_that_fails_is_quoted(stdout: str, stderr: str, reason: str) -> None:
    with pytest.raises(ServerError, match=reason):
        wrk.parse(stdout, stderr)


def test_where_there_is_no_wrk_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match="wrk is not installed; run: apt-get install wrk"):
        wrk.Wrk("localhost:8000")


def test_perf_analyzers_figures_are_read_in_milliseconds() -> None:
    assert perf_analyzer.parse(PERF_ANALYZER, 8) == Load(8, 163.742, 48.785, 82.361)
    with pytest.raises(ServerError, match="perf_analyzer failed"):
        perf_analyzer.parse(PERF_ANALYZER.replace("p99", "p98"), 8)


def statistics(count: int, executions: int) -> dict[str, object]:
    phases = {"queue": 2, "compute_input": 1, "compute_infer": 30, "compute_output": 3}
    return {
        "inference_count": str(count),
        "execution_count": str(executions),
        "inference_stats": {
            "success": {"count": str(count), "ns": "1"},
            **{
                name: {"count": count, "ns": str(count * ms * 10**6)} for name, ms in phases.items()
            },
        },
    }


def test_statistics_are_told_as_what_became_of_an_image() -> None:
    before, after = (triton_statistics.read(statistics(*each)) for each in ((10, 10), (40, 20)))
    assert triton_statistics.between(before, after) == Step(2.0, 1.0, 30.0, 3.0, batch=3.0)


def test_statistics_without_an_image_are_an_error() -> None:
    counters = triton_statistics.read(statistics(10, 10))
    with pytest.raises(ServerError, match="count no image"):
        triton_statistics.between(counters, counters)


def test_workers_are_put_together() -> None:
    one = Turn(images=(0.25, 0.25), imaging_cpu=0.125, graph=0.25)
    other = Turn(images=(0.5, 0.5), imaging_cpu=0.375, graph=0.5)
    assert limit.summary([one, other]) == Bare(2, 6.0, 12.0, 375.0, 125.0)


def test_the_limit_of_a_round_is_the_mean_of_its_turns() -> None:
    one, other = Bare(2, 10.0, 20.0, 4.0, 1.0), Bare(2, 30.0, 40.0, 8.0, 2.0)
    assert rounds.mean([one, other]) == Bare(2, 20.0, 30.0, 6.0, 1.5)


def test_the_knee_is_where_more_clients_bring_later_answers_rather_than_more() -> None:
    rates = {1: 90.0, 2: 140.0, 4: 170.0, 8: 190.0}
    loads = [Load(clients, rate, 1.0, 2.0) for clients, rate in rates.items()]
    assert rounds.knee(loads).clients == 2


def test_cpu_time_is_told_by_part_of_the_server() -> None:
    before = {"tritonserver": 1.0, "birds_pixels": 2.0}
    after = {"tritonserver": 1.5, "birds_pixels": 4.0, "new": 1.0}
    assert processes.milliseconds_an_image(before, after, 100) == {
        "tritonserver": 5.0,
        "birds_pixels": 20.0,
    }


def test_a_server_that_is_not_here_is_not_found() -> None:
    assert processes.find(9) is None
    used = processes.cpu_seconds(psutil.Process(os.getpid()), ["birds_pixels"])
    assert list(used) == ["tritonserver"]


def test_the_plain_loop_makes_the_pixels_that_the_step_makes() -> None:
    image = picture("640x480", "JPEG")
    ours, plain = (np.asarray(way(image, Recipe())).astype(int) for way in rounds.BARE.values())
    assert np.abs(ours - plain).max() <= 2


def test_the_photograph_is_measured_against_the_zoos_arithmetic() -> None:
    image = picture("640x480", "JPEG")
    assert np.array_equal(photograph.reference(image, Recipe()), reference.pixels(image))
    assert photograph.step(image, Recipe()).shape == (224, 224, 3)


@pytest.mark.parametrize(("text", "clients"), [("8", (8,)), ("16,1,8,1", (1, 8, 16))])
def test_numbers_of_clients_are_put_in_order(text: str, clients: tuple[int, ...]) -> None:
    assert benchmark.numbers(text) == clients


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf"])
def test_a_turn_takes_some_time(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no time"):
        benchmark.duration(text)


def test_the_ports_of_a_running_server_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(["--http", "localhost:8000"])
    assert "--http and --grpc go together" in capsys.readouterr().err
