"""Graphs with tensors of other layouts, types and ranks, served as the file has them."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tritonclient.grpc
import tritonclient.http
from onnx import numpy_helper

from scripts.embedded import EmbeddedServer, Endpoints
from scripts.repository import builder
from scripts.repository.onnx_file import Graph
from scripts.repository.sources import ClassifierSource
from scripts.repository.steps.preprocess.recipe import square
from scripts.repository.tuning import Tuning
from tests.graphs import Array
from tests.integration.conftest import HASTE

CLIENTS: dict[str, Any] = {"grpc": tritonclient.grpc, "http": tritonclient.http}
RECIPE = square(36, 32, pixel_range=(0.0, 255.0), mean=(0.0,), std=(1.0,))

HALF = """
    <ir_version: 8, opset_import: ["" : 17]>
    half (float16[N,32,32,3] image)
    => (float16[N,5,1,1] scores, float[N,3] features, int64[N] best, string[N,1] name) {
        planes = Transpose<perm = [0, 3, 1, 2]>(image)
        pooled = GlobalAveragePool(planes)
        flat = Flatten(pooled)
        features = Cast<to = 1>(flat)
        row = MatMul(flat, weight)
        scores = Reshape(row, shape)
        best = ArgMax<axis = 1, keepdims = 0>(row)
        number = ArgMax<axis = 1>(row)
        name = Cast<to = 8>(number)
    }
"""
BYTES = """
    <ir_version: 8, opset_import: ["" : 17]>
    bytes (uint8[N,32,32,3] image) => (uint8[N] score) {
        numbers = DequantizeLinear(image, scale, zero)
        flat = ReduceMean<axes = [1, 2], keepdims = 0>(numbers)
        row = MatMul(flat, weight)
        p = Sigmoid(row)
        q = QuantizeLinear(p, scale, zero)
        score = Squeeze(q, axis)
    }
"""
CONSTANTS: dict[str, dict[str, Array]] = {
    HALF: {
        "weight": np.arange(-7, 8).reshape(3, 5).astype(np.float16),
        "shape": np.array([0, -1, 1, 1]),
    },
    BYTES: {
        "weight": np.array([[5], [-2], [-4]], np.float32),
        "scale": np.array(1 / 255, np.float32),
        "zero": np.array(0, np.uint8),
        "axis": np.array([1]),
    },
}


def parsed(text: str) -> onnx.ModelProto:
    model: onnx.ModelProto = onnx.parser.parse_model(text)
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in CONSTANTS[text].items()
    )
    return model


# Triton's openvino backend has no strings.
WITHOUT_STRINGS = HALF.replace(", string[N,1] name", "").replace("name = Cast<to = 8>(number)", "")
CONSTANTS[WITHOUT_STRINGS] = CONSTANTS[HALF]
MODELS = {
    "half": parsed(HALF),
    "bytes": parsed(BYTES),
    "half_openvino": parsed(WITHOUT_STRINGS),
    "bytes_openvino": parsed(BYTES),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("tensors") / "model_repository"
    for name, model in MODELS.items():
        load = functools.partial(Graph, model, "no file")
        source = ClassifierSource(name, "test", load, RECIPE)
        engine = "openvino" if name.endswith("openvino") else "onnxruntime"
        builder.add(repository, source, tuning=Tuning(cores=1, engine=engine))
    with EmbeddedServer(repository, endpoints=Endpoints.free(), arguments=HASTE) as server:
        yield server


def images(model: onnx.ModelProto, count: int) -> Array:
    pixels = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    is_half = model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    return (pixels / 255).astype(np.float16) if is_half else pixels


def original(model: onnx.ModelProto, values: Array) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": values}), strict=True))


def request(protocol: str, values: Array) -> Any:
    data_type = {"float16": "FP16", "uint8": "UINT8"}[values.dtype.name]
    tensor = CLIENTS[protocol].InferInput("image", list(values.shape), data_type)
    tensor.set_data_from_numpy(values)
    return tensor


def assert_same(result: Any, expected: dict[str, Array]) -> None:
    for name, array in expected.items():
        found = result.as_numpy(name)
        assert found.shape == (array.shape if array.ndim > 1 else (*array.shape, 1)), name
        if array.dtype == object:
            assert [text.decode() for text in found.ravel()] == array.ravel().tolist()
        else:
            assert found.dtype == array.dtype
            np.testing.assert_allclose(found.ravel(), array.ravel(), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_of_the_file_is_served(
    server: EmbeddedServer, protocol: str, name: str
) -> None:
    values = images(MODELS[name], 3)
    with CLIENTS[protocol].InferenceServerClient(server.endpoints.at(protocol)) as client:
        result = client.infer(f"{name}_onnx", [request(protocol, values)])
    assert_same(result, original(MODELS[name], values))


@pytest.mark.parametrize("name", MODELS)
def test_requests_that_form_a_batch_get_their_own_rows(server: EmbeddedServer, name: str) -> None:
    batches = [images(MODELS[name], count) for count in (1, 2, 3, 1, 4, 2, 1, 5)]
    address = server.endpoints.at("http")
    with tritonclient.http.InferenceServerClient(address, concurrency=len(batches)) as client:
        waiting = [
            client.async_infer(f"{name}_onnx", [request("http", values)]) for values in batches
        ]
        results = [each.get_result() for each in waiting]
    for values, result in zip(batches, results, strict=True):
        assert_same(result, original(MODELS[name], values))
