"""The comparison of variants, and perf_analyzer."""

from pathlib import Path

import pytest

from scripts.benchmark_client import Comparison, Measurement, Variant, table
from scripts.embedded import ServerError
from scripts.measuring.perf_analyzer import PerfAnalyzer


def test_variants_take_turns_and_ratios_are_computed_within_a_round() -> None:
    slow, fast = iter([10.0, 1.0, 4.0]), iter([20.0, 3.0, 4.0])
    variants = [
        Variant("slow", lambda: Measurement(next(slow), cpu_ms=0.5)),
        Variant("fast", lambda: Measurement(next(fast))),
    ]
    comparison = Comparison(variants)
    assert list(comparison.run(rounds=3)) == ["slow", "fast"] * 3
    assert comparison.ratios("fast") == [2.0, 3.0, 1.0]
    assert comparison.cpu_ms("slow") == [0.5, 0.5, 0.5]
    assert (comparison.rate("slow"), comparison.rate("fast")) == (4.0, 4.0)
    rows = [list(column.cells) for column in table([comparison]).columns]
    assert rows[:3] == [["slow", "fast"], ["4.0", "4.0"], ["1.000", "2.000"]]


def test_a_missing_perf_analyzer_error_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"run: pip install .* tritonclient==2\.51\.0"):
        PerfAnalyzer(tmp_path / "perf_analyzer")


def test_a_perf_analyzer_failure_quotes_its_last_line(tmp_path: Path) -> None:
    broken = tmp_path / "perf_analyzer"
    broken.write_text("#!/bin/sh\necho one >&2\necho 'connection refused' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(ServerError, match="perf_analyzer failed: connection refused"):
        PerfAnalyzer(broken).rate("birds", "localhost:9", b"", clients=1, count=1)
