"""Benchmark internals. Variants take turns, so that ratios hold on a noisy machine."""
