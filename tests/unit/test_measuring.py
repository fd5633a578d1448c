"""Measuring things side by side."""

from pathlib import Path

import pytest

from scripts.embedded import ServerError
from scripts.measuring import Comparison, PerfAnalyzer, Variant


def test_variants_take_turns_and_ratios_are_those_of_neighbours() -> None:
    slow, fast = iter([10.0, 1.0, 4.0]), iter([20.0, 3.0, 4.0])
    variants = [Variant("slow", lambda: next(slow)), Variant("fast", lambda: next(fast))]
    comparison = Comparison(variants)
    assert list(comparison.run(rounds=3)) == ["slow", "fast"] * 3
    assert comparison.ratios("fast") == [2.0, 3.0, 1.0]
    assert comparison.ratio("fast") == 2.0
    assert (comparison.rate("slow"), comparison.rate("fast")) == (4.0, 4.0)


def test_where_there_is_no_perf_analyzer_it_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"run: pip install .* tritonclient==2\.51\.0"):
        PerfAnalyzer(tmp_path / "perf_analyzer")


def test_a_perf_analyzer_that_fails_is_quoted(tmp_path: Path) -> None:
    broken = tmp_path / "perf_analyzer"
    broken.write_text("#!/bin/sh\necho one >&2\necho 'connection refused' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(ServerError, match="perf_analyzer failed: connection refused"):
        PerfAnalyzer(broken).rate("birds", "localhost:9", b"", concurrency=1, count=1)
