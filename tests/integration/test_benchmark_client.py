"""`python -m scripts.benchmark_client`, for a moment; no figure is asserted."""

import pytest

from scripts import benchmark_client
from scripts.embedded import EmbeddedServer


@pytest.fixture
def arguments(server: EmbeddedServer) -> list[str]:
    at = server.endpoints
    addresses = ["--grpc", f"{at.host}:{at.grpc}", "--http", f"{at.host}:{at.http}"]
    return [*addresses, "--model", "birds", "--images", "10", "--rounds", "2"]


@pytest.mark.parametrize(
    ("options", "variants"),
    [
        ([], ["client", "client"]),
        (["--shared-memory", "--format", "BMP"], ["socket", "shared memory"] * 2),
    ],
)
def test_it_measures_each_variant_and_its_ratio(
    arguments: list[str],
    options: list[str],
    variants: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert benchmark_client.main([*arguments, *options]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "://" in line]
    assert len(rows) == len(variants)
    assert all(variant in row for variant, row in zip(variants, rows, strict=True))
    assert "1.000" in rows[0]


def test_a_benchmark_of_nothing_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark_client.main(["--images", "0"])
    assert "0 is none; give a number from 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--perf-analyzer", "nowhere"], "no perf_analyzer at nowhere"),
        (["--size", "large"], "no picture of large as JPEG"),
        (["--model", "planes"], "'planes' is not found"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    arguments: list[str], options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark_client.main([*arguments, *options]) == 1
    said = capsys.readouterr().err
    assert reason in said
    assert "Traceback" not in said
