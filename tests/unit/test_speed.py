"""Comparing the speed of graphs that take turns."""

import time

import numpy as np
import pytest

from scripts.repository.graphs import speed
from scripts.repository.graphs.engines import Run
from scripts.repository.graphs.speed import speeds
from tests.graphs import Array

IMAGE = np.zeros((1, 3, 4, 4), np.float32)


def sleeper(seconds: float) -> Run:
    def run(batch: Array) -> Array:
        time.sleep(seconds)
        return batch

    return run


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "TURN_SECONDS", 0.01)


def test_each_variant_is_compared_with_the_first() -> None:
    same, half, twice = speeds([[sleeper(4e-3)], [sleeper(8e-3)], [sleeper(2e-3)]], IMAGE)
    assert same == 1
    assert 0.4 < half < 0.7
    assert 1.3 < twice < 2.2


def test_instances_run_at_the_same_time() -> None:
    _, ratio = speeds([[sleeper(5e-3)] * 4, [sleeper(5e-3)]], IMAGE)
    assert 0.7 < ratio < 1.4
