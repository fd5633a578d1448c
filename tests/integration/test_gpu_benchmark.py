"""`python -m scripts.gpu_benchmark --provider cpu` with short turns, against a real Triton.

Asserts that figures exist, not their values. There is no GPU here, and so none of its figures.
"""

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts import cli, gpu_benchmark
from scripts.measuring.gpu import usage
from scripts.measuring.gpu.plan import Setup
from tests.commands import measured
from tests.integration.conftest import add_birds

pytestmark = pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")

QUICK = ["--provider", "cpu", "--precisions", "fp32", "--seconds", "0.2", "--batches", "1"]
SERIES = ["bare", "bare_host", "ensemble", "onnx", "answers"]


def add(output: Path, name: str) -> None:
    """Put the build of a classifier where the command looks for it."""
    repository = output / "repositories" / Setup(name, "fp32", device="cpu").folder
    add_birds(repository, output, name)


def arguments(output: Path, name: str) -> list[str]:
    return [*QUICK, "--clients", "1", "--models", name, "--output", str(output)]


def journal(output: Path) -> list[dict[str, Any]]:
    file = output / "journal.jsonl"
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def wait_for(output: Path, lines: int) -> None:
    """Wait until a journal has some lines, the first of which describes the machine."""
    deadline = time.monotonic() + 60
    while len(journal(output)) < lines:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs below, which continue one another."""
    return tmp_path_factory.mktemp("output")


def test_what_failed_is_reported_and_not_tried_again(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_benchmark.main(arguments(output, "birds")) == 0
    assert gpu_benchmark.main(arguments(output, "birds")) == 0
    lines = journal(output)[1:]
    assert [each["measurement"]["series"] for each in lines] == SERIES
    assert all("birds" in each["failed"] for each in lines)
    printed = capsys.readouterr().out
    assert "measured: 0\n" in printed
    assert "Failed:\n\n- birds fp32, onnxruntime on a CPU: bare, batches of 1: " in printed


def test_a_killed_run_continues_and_repeats_no_measurement(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(output, "birds")
    old = journal(output)
    options = [*arguments(output, "birds"), "--retry-failed"]
    command = [*measured("scripts.gpu_benchmark"), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        wait_for(output, len(old) + 2)
        process.kill()
    before = journal(output)
    assert gpu_benchmark.main(options) == 0
    lines = journal(output)
    assert lines[: len(before)] == before
    new = lines[len(old) :]
    assert [each["measurement"]["series"] for each in new] == SERIES
    assert not any(each["failed"] for each in new)
    assert f"measured: {len(lines) - len(before)}\n" in capsys.readouterr().out


def test_the_report_has_all_figures_but_those_of_a_gpu(output: Path) -> None:
    content = json.loads((output / "gpu.json").read_text())
    assert content["title"].startswith("Rehearsal on a CPU")
    assert [each["series"] for each in content["measurements"]] == SERIES[:-1]
    for each in content["measurements"]:
        figures = each["figures"]
        assert 0 < figures["p50_ms"] <= figures["p99_ms"]
        assert min(figures["rate"], figures["cpu_cores"], each["share_of_bare"]) > 0
        assert "gpu_share" not in figures
    targets = {each["name"]: each["verdict"] for each in content["targets"]}
    assert len(targets) == 5
    assert targets["birds, top-1 agreement with FP32 on the CPU"] == "not measured"
    assert (content["failed"], content["not_measured"]) == ({}, [])
    table = (output / "gpu.md").read_text()
    assert table.startswith("**Rehearsal on a CPU: these are not figures of a GPU.**\n")
    assert "No GPU was found." in table
    assert "| fp32, ensemble, CPU preprocessing | 1 |" in table
    with Image.open(output / "gpu.png") as picture:
        picture.load()
        assert min(picture.size) >= 500


def test_a_terminated_run_writes_its_report(tmp_path: Path) -> None:
    add(tmp_path, "birds")
    command = [*measured("scripts.gpu_benchmark"), *arguments(tmp_path, "birds")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        wait_for(tmp_path, 2)
        process.terminate()
    assert process.returncode == cli.INTERRUPTED
    content = json.loads((tmp_path / "gpu.json").read_text())
    # It may be ended while it writes the next result.
    written = len(journal(tmp_path)) - 1
    assert written <= len(content["measurements"]) <= written + 1 < len(SERIES)


def test_a_run_stops_before_its_budget_is_spent(tmp_path: Path) -> None:
    add(tmp_path, "birds")
    # In a process of its own: pytest-timeout has the alarm of this one.
    command = [*measured("scripts.gpu_benchmark"), *arguments(tmp_path, "birds"), "--budget", "1"]
    start = time.monotonic()
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert time.monotonic() - start < 15
    assert "stopped after 1 s; the same command continues" in printed
    assert len(json.loads((tmp_path / "gpu.json").read_text())["not_measured"]) == len(SERIES)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--wrk", "nowhere/wrk"], "the load generator nowhere/wrk is not installed"),
        (["--wrk", "false"], "false does not run: no output"),
        (["--docs", "page.md"], "figures of --provider cpu do not belong in --docs"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_benchmark.main([*arguments(tmp_path, "birds"), *options]) == 1
    output = capsys.readouterr().err
    assert reason in output
    assert "Traceback" not in output


@pytest.mark.skipif(bool(usage.gpu_description()), reason="there is a GPU")
def test_a_missing_gpu_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--models", "birds", "--output", str(tmp_path)]
    assert gpu_benchmark.main(options) == 1
    assert capsys.readouterr().err.startswith("error: --gpu: no NVIDIA driver (libcuda.so.1")
    assert not list(tmp_path.iterdir())
