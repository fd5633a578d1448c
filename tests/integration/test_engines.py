"""Graphs that OpenVINO runs in the server: the same contract as with onnxruntime."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException

from client import Classifier, InvalidImage, ServerUnavailable
from scripts.embedded import EmbeddedServer, Endpoints, ServerError
from scripts.repository import builder, calibration, sources
from scripts.repository.catalog import CATALOG
from scripts.repository.graphs.engines import has_bfloat16
from scripts.repository.tuning import PRECISIONS, Tuning
from tests import images
from tests.descriptions import said
from tests.graphs import CLASSES, FLEXIBLE, Array, classifier, convolved
from tests.integration.conftest import HASTE, url
from tests.integration.test_overload import MANY, flood
from tests.integration.test_predictions import assert_same, expected

OPENVINO = Tuning(cores=1, engine="openvino")
MOBILENET = "mobilenetv2"
OUTPUT = CATALOG[MOBILENET].output
QUEUE = 8
BURST = 64  # more than the queue holds and the clients' connections delay


def windowed() -> onnx.ModelProto:
    """A classifier of images of any size from 28, which leave something in all its windows."""
    body = """
        pooled = MaxPool<kernel_shape = [7, 7], strides = [7, 7]>(image)
        windows = AveragePool<kernel_shape = [4, 4]>(pooled)
        features = ReduceMean<axes = [2, 3], keepdims = 0>(windows)
        scores = MatMul(features, weight)
    """
    return classifier(body, image='float["N",3,"H","W"]', scores=f'float["N",{CLASSES}]')


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MobileNetV2 in FP32, and a small classifier in each precision, all on OpenVINO."""
    folder = tmp_path_factory.mktemp("engines")
    repository = folder / "model_repository"
    tuning = replace(OPENVINO, queue=QUEUE)
    builder.add(repository, sources.from_seed(CATALOG[MOBILENET]), tuning=tuning)
    onnx.save(convolved(), folder / "birds.onnx")
    pictures = calibration.read(images.fill(folder / "pictures", 10))
    imagenet = said(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    for precision in PRECISIONS:
        source = sources.from_file(folder / "birds.onnx", precision, imagenet)
        tuning = replace(OPENVINO, cores=2)
        builder.add(repository, source, tuning=tuning, precision=precision, images=pictures)
    onnx.save(windowed(), folder / "window.onnx")
    sized = said(resize=36, crop=32)
    builder.add(
        repository, sources.from_file(folder / "window.onnx", "window", sized), tuning=OPENVINO
    )
    return repository


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "tritonserver.log"


@pytest.fixture(scope="module")
def server(repository: Path, log: Path) -> Iterator[EmbeddedServer]:
    graphs = [f"{name}_onnx" for name in (*PRECISIONS, "window")]
    at = Endpoints.free()
    with EmbeddedServer(
        repository, models=[MOBILENET, *graphs], endpoints=at, arguments=HASTE, log=log
    ) as server:
        yield server


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return images.mixed_sizes()


@pytest.fixture
def http(server: EmbeddedServer) -> Iterator[tritonclient.http.InferenceServerClient]:
    with tritonclient.http.InferenceServerClient(
        server.endpoints.at("http"), concurrency=BURST
    ) as client:
        yield client


def tensor(name: str, array: Array) -> Any:
    given = tritonclient.http.InferInput(name, array.shape, "FP32")
    given.set_data_from_numpy(array)
    return given


def tensors(count: int, height: int = 224, width: int = 224) -> Array:
    rng = np.random.default_rng(count)
    return rng.standard_normal((count, 3, height, width)).astype(np.float32)


def test_the_ensemble_equals_the_reference(
    server: EmbeddedServer, protocol: str, pictures: list[bytes]
) -> None:
    with Classifier(url(server, protocol), model=MOBILENET) as client:
        assert_same([client.image(picture) for picture in pictures], expected(MOBILENET))
        assert_same(client.batch(pictures), expected(MOBILENET))


def test_concurrent_batches_of_all_sizes_get_their_own_answers(
    server: EmbeddedServer, protocol: str, pictures: list[bytes]
) -> None:

    sizes = [1, 32, 2, 3, 7, 1, 16, 4]
    with (
        Classifier(url(server, protocol), model=MOBILENET) as client,
        ThreadPoolExecutor(len(sizes)) as pool,
    ):
        batches = pool.map(client.batch, [(pictures * 8)[:size] for size in sizes])
        for size, results in zip(sizes, batches, strict=True):
            assert_same(results, (expected(MOBILENET) * 8)[:size])


@pytest.mark.parametrize(
    ("count", "height", "width"), [(1, 224, 224), (3, 224, 224), (2, 256, 288)]
)
def test_the_original_tensors_are_served(
    repository: Path,
    http: tritonclient.http.InferenceServerClient,
    count: int,
    height: int,
    width: int,
) -> None:
    values = tensors(count, height, width)
    result = http.infer(f"{MOBILENET}_onnx", [tensor("data", values)])
    session = onnxruntime.InferenceSession(repository / f"{MOBILENET}_onnx/1/model.onnx")
    (scores,) = session.run([OUTPUT], {"data": values})
    np.testing.assert_allclose(result.as_numpy(OUTPUT), scores, atol=1e-4)


def test_an_image_too_small_for_the_graph_does_not_get_the_answer_to_an_earlier_one(
    http: tritonclient.http.InferenceServerClient,
) -> None:
    session = onnxruntime.InferenceSession(windowed().SerializeToString())
    for side in (32, 40, 20, 40, 20):
        values = tensors(2, side, side)
        if side == 20:
            with pytest.raises(InferenceServerException, match="larger than the data shape"):
                http.infer("window_onnx", [tensor("image", values)])
        else:
            (scores,) = session.run(None, {"image": values})
            found = http.infer("window_onnx", [tensor("image", values)]).as_numpy("scores")
            np.testing.assert_allclose(found, scores, atol=1e-5)


@pytest.mark.parametrize("count", [0, 33])
def test_a_request_for_a_graph_has_1_to_32_images(
    http: tritonclient.http.InferenceServerClient, count: int
) -> None:
    values = np.zeros((count, 3, 32, 32), np.float32)
    with pytest.raises(InferenceServerException, match=f"must be 1 to 32, not {count}") as caught:
        http.infer("fp32_onnx", [tensor("image", values)])
    assert caught.value.status() == "400"


def test_a_graph_refuses_what_its_queue_cannot_hold(
    http: tritonclient.http.InferenceServerClient,
) -> None:
    values = tensors(1)
    alone = http.infer(f"{MOBILENET}_onnx", [tensor("data", values)]).as_numpy(OUTPUT)
    http.async_infer(f"{MOBILENET}_onnx", [tensor("data", tensors(32))])  # keeps the graph busy
    waiting = [
        http.async_infer(f"{MOBILENET}_onnx", [tensor("data", values)]) for _ in range(BURST)
    ]
    refused = 0
    for each in waiting:
        try:
            np.testing.assert_array_equal(each.get_result().as_numpy(OUTPUT), alone)
        except InferenceServerException as error:
            assert "Exceeds maximum queue size" in str(error)  # noqa: PT017
            refused += 1
    assert 0 < refused < BURST - QUEUE


def test_excess_load_is_refused_and_the_rest_classified(
    server: EmbeddedServer, protocol: str
) -> None:
    outcomes = flood(server, protocol, images.encode(images.photo()), model=MOBILENET)
    refused = [each for each in outcomes if isinstance(each, ServerUnavailable)]
    classified = Counter(each for each in outcomes if isinstance(each, int))
    assert refused
    assert len(refused) + classified.total() == MANY
    assert len(classified) == 1
    assert classified.total() >= QUEUE


def test_an_invalid_image_fails_alone(
    server: EmbeddedServer, protocol: str, pictures: list[bytes]
) -> None:
    with Classifier(url(server, protocol), model=MOBILENET) as client:
        results = list(client.stream([b"no image", *pictures[:2]] * 10, concurrency=QUEUE))
    failed = [isinstance(each.error, InvalidImage) for each in results]
    assert failed == [True, False, False] * 10
    assert_same([each for each in results if not each.error], expected(MOBILENET)[:2] * 10)


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.02), ("int8", 0.05)])
def test_other_precisions_answer_nearly_as_fp32(
    http: tritonclient.http.InferenceServerClient, precision: str, tolerance: float
) -> None:
    given = [tensor("image", tensors(32, 32, 32))]
    fp32, other = (
        http.infer(f"{name}_onnx", given).as_numpy("scores") for name in ("fp32", precision)
    )
    np.testing.assert_allclose(other, fp32, atol=tolerance * np.ptp(fp32))
    assert not np.array_equal(other, fp32) or (precision == "bf16" and not has_bfloat16())


@pytest.mark.usefixtures("server")
def test_a_cpu_without_bfloat16_is_reported_once_for_all_instances(log: Path) -> None:
    lines = [line for line in log.read_text().splitlines() if "no bfloat16 instructions" in line]
    assert len(lines) == (0 if has_bfloat16() else 1)
    assert all("bf16_onnx runs in FP32" in line for line in lines)


OWN = """
    backend: "openvino"
    max_batch_size: 8
    default_model_filename: "model.onnx"
    input { name: "image" data_type: TYPE_FP32 dims: [3, 32, 32] }
    output { name: "scores" data_type: TYPE_FP32 dims: [10] }
    dynamic_batching { max_queue_delay_microseconds: 20000 }
    instance_group { count: 1 kind: KIND_CPU }
    parameters { key: "PERFORMANCE_HINT" value { string_value: "THROUGHPUT" } }
    parameters { key: "NUM_STREAMS" value { string_value: "AUTO" } }
"""


def own(folder: Path, more: str = "", *, graph: bytes | None = None) -> Path:
    """Write a repository with a model that a user has configured."""
    model = folder / "model_repository" / "own"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(OWN + more)
    (model / "1" / "model.onnx").write_bytes(graph or flexible().SerializeToString())
    return model.parent


def flexible() -> onnx.ModelProto:
    return classifier(FLEXIBLE, image='float["N",3,32,32]', scores=f'float["N",{CLASSES}]')


def test_a_configuration_of_ones_own_may_use_triton_s_batches(tmp_path: Path) -> None:
    session = onnxruntime.InferenceSession(flexible().SerializeToString())
    batches = [tensors(count, 32, 32) for count in (1, 3, 8, 2, 1, 5)]
    with (
        EmbeddedServer(own(tmp_path), endpoints=Endpoints.free(), arguments=HASTE) as server,
        tritonclient.http.InferenceServerClient(
            server.endpoints.at("http"), concurrency=len(batches)
        ) as client,
    ):
        waiting = [client.async_infer("own", [tensor("image", batch)]) for batch in batches]
        for batch, each in zip(batches, waiting, strict=True):
            (scores,) = session.run(None, {"image": batch})
            np.testing.assert_allclose(each.get_result().as_numpy("scores"), scores, atol=1e-5)


FAULTY = {
    "no ONNX": (b"hello", "", "Unable to read the model"),
    "a parameter": (
        None,
        'parameters { key: "RESHAPE_IO_LAYERS" value { string_value: "YES" } }',
        "the embedded server does not have the parameter RESHAPE_IO_LAYERS",
    ),
}


@pytest.mark.parametrize(("graph", "more", "message"), FAULTY.values(), ids=FAULTY)
def test_what_does_not_load_is_one_line(
    tmp_path: Path, graph: bytes | None, more: str, message: str
) -> None:
    assert message in failure(own(tmp_path, more, graph=graph))


def test_without_openvino_the_server_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError")
    monkeypatch.chdir(tmp_path)  # Triton's Python imports from there first
    message = "openvino is not installed; run: pip install --group serve"
    assert message in failure(own(tmp_path))


def failure(repository: Path) -> str:
    """Start a server that cannot start, and return its one line."""
    with (
        pytest.raises(ServerError, match="failed to load 'own'") as caught,
        EmbeddedServer(repository, endpoints=Endpoints.free(), arguments=HASTE),
    ):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)
