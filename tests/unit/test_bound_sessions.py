"""How graphs run on a GPU, with NumPy and onnxruntime's CPU provider in place of CuPy and CUDA.

The same code runs on a GPU, which these tests do not need: the memory of the device is then the
host's, and CuPy's functions have the names and the behaviour of NumPy's.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from scripts.embedded.backends.onnxruntime.bound_sessions import (
    BoundSessions,
    Device,
    batch_sizes,
)
from tests.graphs import CLASSES, FLEXIBLE, Array, classifier

IMAGES = np.random.default_rng(0).standard_normal((9, 3, 32, 32)).astype(np.float32)
ON_DEVICE = Device("cpu", arrays=np)
IN_HOST = Device("cpu")


class Remote(np.ndarray[Any, Any]):
    """An array that counts as one in a device's memory, as the others do not."""


def session(body: str = FLEXIBLE, **types: str) -> onnxruntime.InferenceSession:
    types = {"image": "float[N,3,32,32]", "scores": f"float[N,{CLASSES}]"} | types
    graph = classifier(body, **types).SerializeToString()  # type: ignore[arg-type]
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])


def sessions(device: Device, sizes: tuple[int, ...] = (), **types: str) -> BoundSessions:
    return BoundSessions(lambda: session(**types), device, ["image"], ["scores"], sizes)


def expected(images: Array) -> Array:
    scores: Array = session().run(["scores"], {"image": images})[0]
    return scores


@pytest.mark.parametrize("device", [ON_DEVICE, IN_HOST], ids=["on the device", "in the host"])
@pytest.mark.parametrize("counts", [(1,), (4,), (2, 1), (1, 1, 1, 5), (9,)], ids=str)
@pytest.mark.parametrize("sizes", [(), (1, 4, 9)], ids=["any size", "sizes"])
def test_a_batch_of_several_requests_gets_the_scores_of_its_images(
    device: Device, counts: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    parts = np.split(IMAGES, np.cumsum(counts))[:-1]
    (scores,) = sessions(device, sizes).run([parts])
    np.testing.assert_allclose(scores, expected(IMAGES[: sum(counts)]), rtol=1e-5)


def test_each_session_sees_batches_of_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = sessions(ON_DEVICE, (1, 4, 8))
    seen: dict[int, set[int]] = {size: set() for size in bound.sessions}
    for size, each in bound.sessions.items():
        run = each.run_with_iobinding

        def record(binding: Any, size: int = size, run: Any = run) -> None:
            run(binding)
            seen[size].add(len(binding.get_outputs()[0].numpy()))

        monkeypatch.setattr(each, "run_with_iobinding", record)
    for count in range(1, 9):
        (scores,) = bound.run([[IMAGES[:count]]])
        assert len(scores) == count
    assert seen == {1: {1}, 4: {4}, 8: {8}}


def test_an_input_in_the_devices_memory_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = sessions(ON_DEVICE, (4,))
    pointers = []
    binding = bound.sessions[4].io_binding()
    bind = binding.bind_input

    def record(*values: Any) -> None:
        pointers.append(values[-1])
        bind(*values)

    monkeypatch.setattr(binding, "bind_input", record)
    monkeypatch.setattr(bound.sessions[4], "io_binding", lambda: binding)
    bound.run([[IMAGES[2:6]]])
    assert pointers == [IMAGES[2:6].ctypes.data]


def test_images_of_both_memories_are_one_batch_on_the_device() -> None:
    waits = []
    numpy = SimpleNamespace(**{name: getattr(np, name) for name in ("empty", "zeros", "copyto")})
    numpy.ndarray, numpy.asarray = Remote, lambda array: array.view(Remote)
    device = Device("cpu", arrays=numpy, synchronize=lambda: waits.append(True))  # type: ignore[arg-type]
    bound = sessions(device, (4,))
    (scores,) = bound.run([[IMAGES[:1], IMAGES[1:3].view(Remote)]])
    np.testing.assert_allclose(scores, expected(IMAGES[:3]), rtol=1e-5)
    assert waits == [True]
    (scores,) = bound.run([[IMAGES[:1], IMAGES[1:3]]])
    np.testing.assert_allclose(scores, expected(IMAGES[:3]), rtol=1e-5)
    assert waits == [True]  # none were on the device


def test_an_array_on_another_device_is_copied() -> None:
    first, second = Device("cuda", 0, np), Device("cuda", 1, np)
    assert first.take(IMAGES) is IMAGES  # NumPy's arrays say that they are on device 0
    copy = second.take(IMAGES)
    assert copy is not IMAGES
    np.testing.assert_array_equal(copy, IMAGES)


@pytest.mark.parametrize("device", [ON_DEVICE, IN_HOST], ids=["on the device", "in the host"])
@pytest.mark.parametrize("data_type", ["uint8", "float16"])
def test_images_have_any_data_type(device: Device, data_type: str) -> None:
    body = "float = Cast<to = 1>(image)" + FLEXIBLE.replace("(image)", "(float)")
    images = (np.abs(IMAGES[:3]) * 50).astype(data_type)
    bound = BoundSessions(
        lambda: session(body, image=f"{data_type}[N,3,32,32]"), device, ["image"], ["scores"], (4,)
    )
    (scores,) = bound.run([[images[:1], images[1:]]])
    np.testing.assert_allclose(scores, expected(images.astype(np.float32)), rtol=1e-4)


def test_an_answer_is_kept_when_the_next_one_is_computed() -> None:
    bound = sessions(ON_DEVICE, (4,))
    (first,) = bound.run([[IMAGES[:4]]])
    before = first.copy()
    bound.run([[IMAGES[4:8]]])
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize(
    ("largest", "warmed", "data_type", "sizes"),
    [
        (32, (1, 8, 32), "TYPE_UINT8", [1, 8, 32]),
        (32, (1,), "TYPE_UINT8", [1, 32]),
        (8, (), "TYPE_FP32", [8]),
        (4, (1, 8), "TYPE_FP32", [1, 4]),
        (0, (0,), "TYPE_FP32", []),
        (32, (1,), "TYPE_STRING", []),
    ],
)
def test_there_is_a_session_for_each_batch_size_of_the_warm_up(
    largest: int, warmed: tuple[int, ...], data_type: str, sizes: list[int]
) -> None:
    config = {
        "max_batch_size": largest,
        "input": [{"data_type": data_type}],
        "model_warmup": [{"batch_size": size} for size in warmed],
    }
    assert batch_sizes(config) == sizes
