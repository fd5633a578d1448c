"""`python -m scripts.benchmark_client` with few images; asserts no figures."""

import shutil
from pathlib import Path

import pytest

from scripts import benchmark_client
from scripts.embedded import EmbeddedServer
from tests.integration.conftest import ADMIN_KEY, PROTOCOLS


@pytest.fixture
def arguments(keyed: EmbeddedServer, tmp_path: Path) -> list[str]:
    key = tmp_path / "admin.key"
    key.write_text(ADMIN_KEY)
    addresses = [f"--{protocol}={keyed.endpoints.at(protocol)}" for protocol in PROTOCOLS]
    options = ["--model", "birds", "--images", "10", "--rounds", "2"]
    return [*addresses, *options, "--admin-key-file", str(key)]


def result_rows(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.strip().startswith(("gRPC", "HTTP"))]


@pytest.mark.parametrize(
    ("options", "variants"),
    [
        ([], ["client", "client"]),
        (["--shared-memory", "--format", "BMP"], ["socket", "shared memory"] * 2),
    ],
)
def test_each_variant_is_measured(
    arguments: list[str],
    options: list[str],
    variants: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert benchmark_client.main([*arguments, *options]) == 0
    rows = result_rows(capsys.readouterr().out)
    assert len(rows) == len(variants)
    assert all(variant in row for variant, row in zip(variants, rows, strict=True))
    assert "1.000" in rows[0]


def test_the_load_test_is_measured(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark_client, "LOCUST_SECONDS", 1)
    monkeypatch.setattr(benchmark_client, "LOCUST_START_SECONDS", 1)
    assert benchmark_client.main([*arguments, "--rounds", "1", "--locust"]) == 0
    rows = [line.split() for line in result_rows(capsys.readouterr().out)]
    generators = [row[1] for row in rows]
    assert generators == [*(["wrk"] if shutil.which("wrk") else []), "Locust", "Locust"]
    for row in rows:
        rate, cpu_ms = float(row[2]), float(row[6])
        assert rate > 0
        assert cpu_ms > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "0"], "argument --images: must be at least 1"),
        (["--size", "large"], "argument --size: 'large' is not a size such as 320x240"),
        (["--shared-memory", "--perf-analyzer", "nowhere"], "does not go with --perf-analyzer"),
        (["--shared-memory", "--locust"], "not allowed with argument --shared-memory"),
    ],
)
def test_invalid_options_are_wrong_usage(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        benchmark_client.main(options)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--perf-analyzer", "nowhere"], "no perf_analyzer at nowhere"),
        (["--format", "large"], "cannot write 256x256 as large"),
        (["--model", "planes"], "'planes' is not found"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark_client.main([*arguments, *options]) == 1
    output = capsys.readouterr().err
    assert reason in output
    assert "Traceback" not in output
