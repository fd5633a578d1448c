"""Sizes of the shared memory of Python processes."""

from collections import Counter
from pathlib import Path

import pytest

from scripts.embedded.pools import LARGE_REQUEST, MIB, Pools, pools_of


def pools(free: int, python: int = 4, graphs: int = 4) -> Pools:
    return Pools(Counter(python=python, onnxruntime=graphs), free * MIB)


@pytest.mark.parametrize(
    ("free", "processes", "reserve"),
    [(64, 4, 4), (1024, 36, 12), (24_000, 17, 16), (24_000, 200, 5), (16, 40, 1)],
)
def test_each_pool_starts_with_a_share_of_half_the_free_memory(
    free: int, processes: int, reserve: int
) -> None:
    assert pools(free, python=4, graphs=processes).reserve == reserve * MIB
    (option,) = pools(free, python=4, graphs=processes).options
    assert option.endswith(f"={reserve * MIB}")


def test_little_shared_memory_is_worth_a_warning() -> None:
    enough = 8 * 16 + 4 * LARGE_REQUEST // MIB
    assert pools(enough).warning is None
    assert pools(enough - 1).warning == (
        f"/dev/shm has {enough - 1} MiB free; with less than {enough} MiB, "
        "requests of more than 16 MiB can fail"
    )


def test_processes_are_counted_from_the_configurations(tmp_path: Path) -> None:
    for name, config in {
        "preprocess": 'backend: "python" instance_group { count: 3 kind: KIND_CPU }',
        "postprocess": 'backend: "python" instance_group { count: 1 } instance_group { count: 1 }',
        "graph": 'backend: "onnxruntime"',
        "ensemble": 'platform: "ensemble"',
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").write_text(config)
    found = pools_of(tmp_path)
    assert found.processes == Counter(python=5, onnxruntime=1)
    assert found.free > 0
