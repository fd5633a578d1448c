"""The options that say what runs the graphs, and in which precision."""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from scripts import build_repository, engine_options
from scripts.repository import tuning
from scripts.repository.errors import BuildError
from scripts.repository.execution import Request
from scripts.repository.graphs import engines
from scripts.repository.tuning import Tuning

CORES = tuning.cores()


@pytest.fixture(autouse=True)
def outside_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_options, "CONTAINER_FILES", ())


def parsed(*options: str) -> argparse.Namespace:
    return build_repository.parser().parse_args(options)


@pytest.mark.parametrize(
    ("options", "request_"),
    [
        ([], Request(Tuning(cores=CORES))),
        (["--engine", "openvino"], Request(Tuning(cores=CORES, engine="openvino"))),
        (["--precision", "bf16"], Request(Tuning(cores=CORES, engine="openvino"), "bf16")),
        (["--precision", "int8"], Request(Tuning(cores=CORES), "int8")),
        (["--engine", "auto"], Request(Tuning(cores=CORES), auto=True)),
        (
            ["--engine", "auto", "--precision", "int8", "--optimize", "latency", "--queue", "9"],
            Request(Tuning("cpu", "latency", CORES, 9), "int8", auto=True),
        ),
        (["--cores", "3"], Request(Tuning(cores=3))),
        (
            ["--device", "gpu", "--engine", "tensorrt", "--precision", "fp16"],
            Request(Tuning("gpu", cores=CORES, engine="tensorrt"), "fp16"),
        ),
        (
            ["--device", "gpu", "--engine", "tensorrt", "--engine-cache", "/data"],
            Request(Tuning("gpu", cores=CORES, engine="tensorrt", engine_cache="/data")),
        ),
        (
            ["--device", "gpu", "--preprocess", "gpu"],
            Request(Tuning("gpu", cores=CORES, preprocess="gpu")),
        ),
    ],
)
def test_options_make_a_request(options: list[str], request_: Request) -> None:
    assert engine_options.request(parsed(*options)) == request_


@pytest.mark.parametrize(
    ("options", "engine", "reason"),
    [
        (["--cores", "2"], "onnxruntime", "--cores is given, as for another machine"),
        (["--precision", "bf16"], "openvino", "only OpenVINO computes in bfloat16"),
    ],
)
def test_auto_that_is_not_measured_says_why(
    options: list[str], engine: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    request = engine_options.request(parsed("--engine", "auto", *options))
    assert (request.tuning.engine, request.auto) == (engine, False)
    assert f"--engine auto is {engine}, without measuring: {reason}" in caplog.messages[0]


def test_auto_is_not_measured_in_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".containerenv").touch()
    monkeypatch.setattr(engine_options, "CONTAINER_FILES", (tmp_path / ".containerenv",))
    request = engine_options.request(parsed("--engine", "auto"))
    assert request == Request(Tuning(cores=CORES))
    assert "without measuring: a container may run on another machine" in caplog.text


def test_auto_is_onnxruntime_if_openvino_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        engines, "find_spec", lambda name: None if name == "openvino" else find_spec(name)
    )
    assert engine_options.request(parsed("--engine", "auto")) == Request(Tuning(cores=CORES))
    assert "OpenVINO is not installed; run pip install --group build" in caplog.text


GPU = ["--device", "gpu"]
TENSORRT = [*GPU, "--engine", "tensorrt"]
INT8 = ["--precision", "int8", "--calibration", "tests"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "tensorrt"], "--engine tensorrt is for --device gpu; give both, or leave it"),
        ([*GPU, "--engine", "openvino"], "--engine openvino is for --device cpu; leave it out"),
        ([*GPU, "--engine", "auto"], "--engine auto is for --device cpu; leave it out"),
        (
            [*GPU, *INT8],
            "--precision int8 is for --device cpu; leave it out, or give --precision f",
        ),
        ([*TENSORRT, *INT8], "--precision int8 is for --device cpu; leave it out, or give --preci"),
        ([*TENSORRT, "--precision", "bf16"], "--precision bf16 is for --device cpu; leave it out"),
        (
            [*GPU, "--engine-cache", "/data"],
            "--engine-cache is for --engine tensorrt; leave it out",
        ),
        (
            ["--preprocess", "gpu"],
            "--preprocess gpu is for --device gpu; give both, or leave it out",
        ),
        (
            [*GPU, "--preprocess", "gpu", "--decoding", "exact"],
            "--preprocess gpu decodes with nvJPEG, not with the reference's bits; give --prep",
        ),
        (["--engine-cache", "/data"], "--engine-cache is for --engine tensorrt; leave it out"),
        ([*TENSORRT, "--engine-cache", "engines"], "--engine-cache engines: give the path from /,"),
    ],
)
def test_options_that_do_not_fit_the_device_are_refused(options: list[str], message: str) -> None:
    with pytest.raises(BuildError) as raised:
        engine_options.check(parsed(*options))
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [GPU, TENSORRT, [*TENSORRT, "--precision", "fp16"], [*GPU, "--preprocess", "gpu"]],
)
def test_options_for_a_gpu_fit(options: list[str]) -> None:
    engine_options.check(parsed(*options))


@pytest.mark.parametrize("options", [["--engine", "openvino"], ["--precision", "bf16"]])
def test_openvino_that_is_needed_and_not_installed_is_reported(
    options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_options.check(parsed(*options))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BuildError, match="OpenVINO is not installed; run pip install --group b"):
        engine_options.check(parsed(*options))


def test_a_cpu_without_bfloat16_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    engine_options.request(parsed("--precision", "bf16"))
    has_warning = "this CPU has no bfloat16 instructions (AVX512-BF16 or AMX)" in caplog.text
    assert has_warning != engines.has_bfloat16()
