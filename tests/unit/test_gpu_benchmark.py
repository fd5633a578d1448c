"""What the GPU benchmark plans, computes and writes, from given numbers.

No figure here was measured, and pynvml is replaced by a module with given numbers.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnx
import onnxruntime
import pytest

from scripts import gpu_benchmark
from scripts.embedded import ServerError
from scripts.measuring.gpu import bare, pages, plan, usage
from scripts.measuring.gpu.journal import Journal, Result
from scripts.measuring.gpu.plan import ANSWERS, BARE, ENSEMBLE, ONNX, Measurement, Plan, Setup
from scripts.measuring.gpu.results import Report
from scripts.measuring.markers import replaced
from scripts.measuring.pictures import parts
from scripts.measuring.report import Machine
from tests.graphs import FLEXIBLE, classifier
from tests.unit.test_project import make

PLAN = Plan(
    models=("resnet50_v1", "mobilenetv2"),
    precisions=("fp16", "fp32"),
    engines=("onnxruntime",),
    provider="cuda",
    batches=(1, 32),
    clients=(1, 8, 256),
    seconds=3.0,
    rounds=1,
    compared="squeezenet",
    images=4,
)
FP16, FP32 = Setup("resnet50_v1", "fp16"), Setup("resnet50_v1", "fp32")
ON_GPU = replace(FP16, preprocess="gpu")
REFERENCE = PLAN.reference


@pytest.fixture
def _with_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_is_installed", lambda _: True)


def figures(rate: float, p50: float = 1.0) -> dict[str, float]:
    return {"rate": rate, "p50_ms": p50, "p99_ms": 2 * p50}


def answers(preprocess: str, *classes: int) -> Result:
    setup = Setup("squeezenet", "fp16", preprocess=preprocess)
    return Result(Measurement(setup, ANSWERS, len(classes)), 0, classes=classes)


RESULTS = (
    Result(Measurement(FP16, BARE, 1), 0, figures(1000, p50=1.0)),
    Result(Measurement(FP16, BARE, 32), 0, figures(12_500)),
    Result(Measurement(FP32, BARE, 32), 0, figures(5000)),
    Result(Measurement(FP16, ENSEMBLE, 1), 0, figures(200, p50=5.0)),
    Result(Measurement(ON_GPU, ENSEMBLE, 1), 0, figures(300, p50=3.5)),
    Result(Measurement(ON_GPU, ENSEMBLE, 256), 0, figures(11_000)),
    Result(Measurement(ON_GPU, ENSEMBLE, 256), 1, figures(9_500)),
    Result(Measurement(FP32, ONNX, 8), 0, failed="out of memory"),
    Result(Measurement(REFERENCE, ANSWERS, 4), 0, classes=(1, 2, 3, -1)),
    answers("cpu", 1, 2, 3, 4),
    answers("gpu", 1, 2, 0, 4),
)


def a_report(*, results: tuple[Result, ...] = RESULTS, planned: Plan = PLAN) -> Report:
    machine = Machine("a CPU", 16, {"onnxruntime-gpu": "1.31.1"})
    gpu = {"gpu": "a GPU", "driver": "580"}
    return Report(machine, gpu, planned, results, "synthetic", "real", are_photographs=True)


@pytest.mark.usefixtures("_with_packages")
def test_the_measurements_that_decide_on_the_targets_come_first() -> None:
    names = [str(each) for each in PLAN.measurements]
    assert len(names) == len(set(names)) == 2 * (2 * 2 * 2 + 2 * 2 * 3 + 2 * 3) + 5
    start = "resnet50_v1 fp16, onnxruntime on a GPU: "
    assert names[0] == f"{start}bare, batches of 32"
    assert names[4] == f"{start}ensemble, GPU preprocessing, clients: 256"
    assert names[5] == f"{start}ensemble, GPU preprocessing, clients: 1"
    first_of_others = next(i for i, each in enumerate(names) if each.startswith("mobilenetv2"))
    assert all("squeezenet" in each for each in names[first_of_others - 5 : first_of_others])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"provider": "cpu"}, "GPU preprocessing is skipped: --provider cpu"),
        ({}, "GPU preprocessing is skipped: nowhere.cupy is not installed"),
        ({"engines": ("tensorrt",)}, "TensorRT is skipped: the installed onnxruntime has no"),
    ],
)
def test_what_the_installation_cannot_do_is_skipped(
    changes: dict[str, object], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "GPU_PACKAGES", ("nowhere.cupy",))
    planned = replace(PLAN, **changes)  # type: ignore[arg-type]
    assert any(each.startswith(reason) for each in planned.skipped)
    assert all(each.setup.preprocess == "cpu" for each in planned.measurements)
    assert all(each.setup.engine != "tensorrt" for each in planned.measurements)
    every = replace(planned, skips=False).measurements
    is_cpu = planned.provider == "cpu"
    assert any(each.setup.preprocess == "gpu" for each in every) == (not is_cpu)


def test_tensorrt_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    providers = SimpleNamespace(get_available_providers=lambda: [plan.TENSORRT_PROVIDER])
    monkeypatch.setattr(plan, "onnxruntime", providers)
    planned = replace(PLAN, engines=("tensorrt",), provider="cpu")
    assert planned.skipped[1].startswith("TensorRT is skipped: libnvinfer.so.10: cannot open")


def test_a_journal_gives_back_what_was_added_but_a_torn_line(tmp_path: Path) -> None:
    file, header = tmp_path / "journal.jsonl", {"gpu": "one"}
    journal = Journal(file, header, same=("gpu",))
    for each in RESULTS:
        journal.add(each)
    file.write_bytes(file.read_bytes() + b'{"measurement": {')
    again = Journal(file, {"gpu": "other"}, same=())
    assert again.results == RESULTS
    assert again.header == header
    assert file.read_bytes().endswith(b"}\n")


def test_a_journal_knows_what_is_missing_and_what_failed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", {}, same=())
    good, failed, new = (Measurement(FP16, BARE, batch) for batch in (1, 8, 32))
    journal.add(Result(good, 0, figures(1)))
    journal.add(Result(failed, 0, failed="out of memory"))
    assert journal.missing([good, failed, new], 0, retry=False) == [new]
    assert journal.missing([good, failed, new], 0, retry=True) == [failed, new]
    assert journal.missing([good], 1, retry=False) == [good]
    journal.add(Result(failed, 0, figures(2)))
    assert journal.missing([good, failed, new], 0, retry=True) == [new]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"gpu": "other"}\n', "was written with another gpu ('other', now 'one')"),
        (b"[1]\n", "journal.jsonl is damaged (TypeError"),
        (b'{"gpu": "one"}\n{"round": 0}\n', "journal.jsonl is damaged (KeyError"),
    ],
)
def test_another_journal_is_refused_and_kept(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "journal.jsonl"
    file.write_bytes(content)
    with pytest.raises(ServerError) as raised:
        Journal(file, {"gpu": "one"}, same=("gpu",))
    assert reason in str(raised.value)
    assert file.read_bytes() == content


def test_targets_are_met_not_met_or_not_measured() -> None:
    targets = [(each.value, each.verdict) for each in a_report().targets]
    assert targets == [
        (10_250 / 12_500, "met"),
        (10_250, "met"),
        (2.5, "met"),
        (2.5, "met"),
        (2 / 3, "not met"),
    ]
    assert {each.verdict for each in a_report(results=()).targets} == {"not measured"}


def test_agreement_counts_only_with_photographs_and_real_weights() -> None:
    target = replace(a_report(), are_photographs=False).targets[-1]
    assert (target.value, target.note) == (None, "no photographs: give --images")
    target = replace(a_report(), compared_weights="synthetic").targets[-1]
    assert (target.value, target.note) == (None, "random weights: give --onnx")


def test_answers_are_compared_with_the_cpu_and_with_its_preprocessing() -> None:
    found = [(str(each.other), str(each.one), each.share) for each in a_report().agreements]
    cpu, gpu = (f"fp16 on a GPU, {each} preprocessing" for each in ("CPU", "GPU"))
    reference = "fp32 on a CPU, CPU preprocessing"
    assert found == [(cpu, reference, 1.0), (gpu, cpu, 0.75), (gpu, reference, 2 / 3)]


def test_the_table_has_every_figure_and_says_what_lacks() -> None:
    table = pages.table(a_report())
    assert table.startswith("**Benchmark on a GPU.**\n\ngpu a GPU, driver 580\n")
    assert "| fp16, ensemble, GPU preprocessing | 256 | 10,250 | 82% | 1.0 | 2.0 |" in table
    assert "- resnet50_v1 fp32, onnxruntime on a GPU: resnet50_v1_onnx, clients: 8: out of" in table
    assert "Not measured yet:\n\n- resnet50_v1 fp16" in table


def test_a_published_table_is_put_between_markers(tmp_path: Path) -> None:
    page = "before <!-- gpu-benchmark --><!-- end of gpu-benchmark --> after"
    assert replaced(page, gpu_benchmark.MARKER, "table") == (
        "before <!-- gpu-benchmark -->\ntable\n<!-- end of gpu-benchmark --> after"
    )


@pytest.mark.usefixtures("_with_packages")
def test_the_report_is_written_into_a_page_without_a_gpu(tmp_path: Path) -> None:
    header = {"version": 1, "provider": "cuda", "weights": "synthetic", "gpu": "a GPU"}
    header |= {"driver": {"driver": "580"}, "machine": {"cpu": "", "cores": 16, "versions": {}}}
    journal = Journal(tmp_path / "journal.jsonl", header, same=())
    for each in RESULTS:
        journal.add(each)
    page = tmp_path / "docs" / "gpu.md"
    page.parent.mkdir()
    page.write_text("<!-- gpu-benchmark --><!-- end of gpu-benchmark -->")
    command = ["--output", str(tmp_path), "--report-only", "--docs", str(page)]
    assert gpu_benchmark.main(command) == 0
    assert "**Benchmark on a GPU.**" in page.read_text()
    assert json.loads((page.parent / "gpu.json").read_text())["title"] == "Benchmark on a GPU"
    assert (page.parent / "gpu.png").exists()


def test_the_use_of_the_gpu_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(
        NVMLError=OSError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda number: number + 1,
        nvmlDeviceGetUtilizationRates=lambda _: SimpleNamespace(gpu=50),
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(used=2 << 20),
        nvmlDeviceGetName=lambda _: "a GPU",
        nvmlSystemGetDriverVersion=lambda: "580.1",
        nvmlSystemGetCudaDriverVersion=lambda: 13010,
    )
    monkeypatch.setattr(usage, "pynvml", fake)
    monkeypatch.setattr(usage, "PERIOD_SECONDS", 0.001)
    with usage.Usage() as used:
        while not used._shares:  # noqa: SLF001
            pass
    assert (used.figures["gpu_share"], used.figures["gpu_memory_mib"]) == (0.5, 2.0)
    described = {"gpu": "a GPU", "driver": "580.1", "driver's CUDA": "13.1"}
    assert usage.gpu_description() == described


def test_a_graph_that_does_not_load_fails_all_its_loads(tmp_path: Path) -> None:
    loads = [(BARE, 1), (BARE, 8)]
    found = list(bare.measure(tmp_path / "nowhere.onnx", "cpu", loads, 0.1))
    assert len(found) == 2
    assert all("nowhere.onnx" in each["failed"] for each in found)


def test_a_bare_graph_that_cannot_use_the_gpu_prints_only_the_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "graph.onnx"
    onnx.save(classifier(FLEXIBLE), file)

    def without_memory(*_: object) -> None:
        raise RuntimeError("CUDA failure 2: out of memory")

    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", without_memory)
    bare.main(str(file), "cuda", "0.05", "bare:2")
    assert json.loads(capfd.readouterr().out) == {"failed": "CUDA failure 2: out of memory"}


def test_the_bare_graph_is_measured_on_the_device_and_from_the_host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "birds.onnx"
    onnx.save(classifier(FLEXIBLE, image="float[2,3,32,32]", scores="float[2,10]"), file)
    bare.main(str(file), "cpu", "0.05", "bare:2", "bare:1", "bare_host:2")
    on_device, failed, from_host = map(json.loads, capsys.readouterr().out.splitlines())
    for each in (on_device, from_host):
        assert 0 < each["p50_ms"] <= each["p99_ms"]
        assert each["rate"] > 0
    assert "invalid dimensions" in failed["failed"]


def test_make_measures_in_an_environment_for_gpus() -> None:
    output = make("--dry-run", "gpu-benchmark", "GPU_BENCHMARK_ARGS=--budget 60")
    assert "install --quiet --group gpu --group measure" in output
    assert output.endswith("-gpu/bin/python -m scripts.gpu_benchmark --budget 60\n")


def test_clients_may_not_exceed_the_queue() -> None:
    assert gpu_benchmark._clients("1,512") == (1, 512)  # noqa: SLF001
    with pytest.raises(argparse.ArgumentTypeError, match="at most 512"):
        gpu_benchmark._clients("513")  # noqa: SLF001


def test_parts_of_the_sample_photograph_are_the_same_each_time() -> None:
    assert len(set(parts(8))) == 8
    assert parts(8) == parts(8)
