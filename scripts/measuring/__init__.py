"""Measures what serves and what asks, side by side, so that ratios hold on a noisy machine."""

from scripts.measuring.comparison import Comparison, Variant
from scripts.measuring.perf_analyzer import PerfAnalyzer

__all__ = ["Comparison", "PerfAnalyzer", "Variant"]
