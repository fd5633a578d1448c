"""Synthetic zoo files: the real structure, and logits that depend on the image."""

import functools
import math
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from scripts.repository.catalog import CATALOG
from scripts.repository.graphs import synthetic
from scripts.repository.steps.postprocess.ranking import softmax
from tests import reference

Array = NDArray[np.float32]

# Published by Gluon, including running statistics.
PARAMETERS = {
    "resnet18_v1": 11_699_112,
    "resnet34_v1": 21_814_696,
    "resnet50_v1": 25_629_032,
    "resnet101_v1": 44_695_144,
    "resnet152_v1": 60_404_072,
    "resnet18_v2": 11_695_796,
    "resnet34_v2": 21_811_380,
    "resnet50_v2": 25_595_060,
    "resnet101_v2": 44_639_412,
    "resnet152_v2": 60_329_140,
    "mobilenetv2": 3_539_136,
}
# Billions of multiply-adds per image: table 1 of He et al. 2015, section 6.1 of Sandler et al.
# 2018. Gluon's v2 bottlenecks have their stride in the second convolution, which adds 0.2 to 0.3.
MULTIPLY_ADDS = {
    "resnet18_v1": 1.8,
    "resnet34_v1": 3.6,
    "resnet50_v1": 3.8,
    "resnet101_v1": 7.6,
    "resnet152_v1": 11.3,
    "resnet18_v2": 1.8,
    "resnet34_v2": 3.6,
    "resnet50_v2": 4.1,
    "resnet101_v2": 7.8,
    "resnet152_v2": 11.5,
    "mobilenetv2": 0.3,
}
RESNETS = [name for name in CATALOG if name.startswith("resnet")]
RUN = ["resnet18_v1", "resnet50_v1", "resnet152_v1", "resnet18_v2", "resnet152_v2", "mobilenetv2"]


@pytest.fixture(scope="module", autouse=True)
def _forget_models() -> Iterator[None]:
    """Free the memory: all eleven models take a gigabyte."""
    yield
    for cached in (serialized, skeleton, logits):
        cached.cache_clear()


@functools.cache
def serialized(name: str) -> bytes:
    return synthetic.build(CATALOG[name]).SerializeToString()


@functools.cache
def skeleton(name: str) -> onnx.ModelProto:
    """The model without the bytes of its weights."""
    model = onnx.load_from_string(serialized(name))
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > 100:
            tensor.ClearField("raw_data")
    return model


@functools.cache
def logits(name: str) -> Array:
    """The logits of `images()`, one row per image."""
    session = session_of(name)
    return np.concatenate([session.run(None, {"data": image[None]})[0] for image in images()])


def session_of(
    name: str, level: ort.GraphOptimizationLevel = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = level
    options.intra_op_num_threads = 2
    return ort.InferenceSession(serialized(name), options, providers=["CPUExecutionProvider"])


def images() -> Array:
    """Plain colours, gradients, clouds and noise, normalised as the classifiers expect them."""
    generator = np.random.default_rng(0)
    colours = np.array([(0.9, 0.2, 0.1), (0.2, 0.6, 0.3), (0.1, 0.3, 0.8), (0.5, 0.5, 0.5)])
    plain = np.broadcast_to(colours[:, :, None, None], (4, 3, 224, 224))
    ramp = np.broadcast_to(np.linspace(0, 1, 224), (224, 224))
    gradients = np.stack([np.stack([ramp, ramp.T, 1 - ramp]), np.stack([1 - ramp.T, ramp, ramp])])
    noise = generator.random((1, 3, 224, 224))
    pixels = np.concatenate([plain, gradients, clouds(generator, 4), noise])
    return np.asarray(
        (pixels - reference.MEAN[:, None, None]) / reference.STD[:, None, None], np.float32
    )


def clouds(generator: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Noise whose amplitude falls with frequency, like that of photographs."""
    frequencies = np.fft.fftfreq(224)
    falloff = 1 / np.maximum(np.hypot(frequencies[:, None], frequencies[None]), 1 / 224)
    spectrum = np.fft.fft2(generator.standard_normal((count, 3, 224, 224))) * falloff
    waves = np.fft.ifft2(spectrum).real
    return np.asarray(np.clip(0.5 + 0.25 * waves / waves.std(), 0, 1))


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def constant(model: onnx.ModelProto, name: str) -> list[int]:
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    values: list[int] = numpy_helper.to_array(tensors[name]).tolist()
    return values


@pytest.mark.parametrize("name", CATALOG)
def test_it_has_the_published_number_of_parameters(name: str) -> None:
    tensors = skeleton(name).graph.initializer
    counts = [np.prod(t.dims) for t in tensors if t.data_type == onnx.TensorProto.FLOAT]
    assert sum(counts) == PARAMETERS[name]


@pytest.mark.parametrize("name", CATALOG)
def test_its_file_has_the_size_of_the_zoos(name: str) -> None:
    assert len(serialized(name)) == pytest.approx(CATALOG[name].size, rel=0.01)


@pytest.mark.parametrize("name", CATALOG)
def test_it_is_ir_3_and_opset_7(name: str) -> None:
    model = skeleton(name)
    assert model.ir_version == 3
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 7)]


@pytest.mark.parametrize("name", CATALOG)
def test_every_initializer_is_a_graph_input_of_the_same_shape(name: str) -> None:
    graph = skeleton(name).graph
    described = {value.name: shape_of(value) for value in graph.input if value.name != "data"}
    assert described == {tensor.name: list(tensor.dims) for tensor in graph.initializer}


@pytest.mark.parametrize("name", RESNETS)
def test_a_resnet_has_a_variable_batch_and_the_output_of_the_catalogue(name: str) -> None:
    graph = skeleton(name).graph
    assert graph.input[0].name == "data"
    assert shape_of(graph.input[0]) == ["N", 3, 224, 224]
    assert [value.name for value in graph.output] == [CATALOG[name].output]
    assert shape_of(graph.output[0]) == ["N", 1000]


def multiply_adds(model: onnx.ModelProto) -> float:
    """Count the multiply-adds of convolutions and the last layer, in billions."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    sizes = {value.name: shape_of(value)[2:] for value in graph.value_info}
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    products = [
        [*weights[node.input[1]], *sizes.get(node.output[0], [])]
        for node in graph.node
        if node.op_type in {"Conv", "Gemm"}
    ]
    return sum(math.prod(map(int, product)) for product in products) / 1e9


@pytest.mark.parametrize("name", CATALOG)
def test_it_has_the_published_number_of_multiply_adds(name: str) -> None:
    assert multiply_adds(skeleton(name)) == pytest.approx(MULTIPLY_ADDS[name], rel=0.05)


def test_mobilenet_has_a_fixed_batch_of_one() -> None:
    graph = skeleton("mobilenetv2").graph
    assert shape_of(graph.input[0]) == [1, 3, 224, 224]
    assert [value.name for value in graph.output] == ["mobilenetv20_output_flatten0_reshape0"]
    assert shape_of(graph.output[0]) == [1, 1000]


def test_mobilenet_ends_in_a_convolution_and_a_reshape_to_a_constant() -> None:
    model = skeleton("mobilenetv2")
    pool, conv, reshape = model.graph.node[-3:]
    assert [pool.op_type, conv.op_type] == ["GlobalAveragePool", "Conv"]
    assert list(conv.input) == [pool.output[0], "mobilenetv20_output_pred_weight"]
    assert reshape.op_type == "Reshape"
    assert constant(model, reshape.input[1]) == [0, -1]


@pytest.mark.parametrize("name", [name for name in RESNETS if name.endswith("v2")])
def test_resnet_v2_begins_with_a_normalisation_of_the_three_colours(name: str) -> None:
    graph = skeleton(name).graph
    first = graph.node[0]
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    assert first.op_type == "BatchNormalization"
    assert first.input[0] == "data"
    assert [shapes[parameter] for parameter in first.input[1:]] == [[3]] * 4


def test_resnet_v2_flattens_with_a_reshape_to_a_constant() -> None:
    model = skeleton("resnet18_v2")
    reshape, gemm = model.graph.node[-2:]
    assert reshape.output[0] == "resnetv22_flatten0_reshape0"
    # The number is that of the published file.
    assert reshape.input[1] == "reshape_attr_tensor164"
    assert constant(model, reshape.input[1]) == [0, -1]
    assert gemm.op_type == "Gemm"


def test_resnet_v1_flattens_with_a_flatten() -> None:
    flatten, gemm = skeleton("resnet50_v1").graph.node[-2:]
    # The number is that of the published file.
    assert (flatten.op_type, flatten.name) == ("Flatten", "flatten_473")
    assert list(gemm.input[1:]) == ["resnetv17_dense0_weight", "resnetv17_dense0_bias"]


def test_resnet50_v1_has_its_stride_in_the_first_convolution_of_a_stage() -> None:
    nodes = {node.name: node for node in skeleton("resnet50_v1").graph.node}
    conv = nodes["resnetv17_stage2_conv0_fwd"]
    attributes = {a.name: list(a.ints) for a in conv.attribute}
    assert attributes["kernel_shape"] == [1, 1]
    assert attributes["strides"] == [2, 2]
    assert conv.input[2] == "resnetv17_stage2_conv0_bias"


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("resnet50_v1", ["resnetv17_batchnorm0_running_var", "resnetv17_stage4_conv9_weight"]),
        ("resnet50_v2", ["resnetv24_batchnorm2_gamma", "resnetv24_stage4_batchnorm8_beta"]),
        ("mobilenetv2", ["mobilenetv20_features_linearbottleneck16_batchnorm2_running_mean"]),
    ],
)
def test_tensors_have_the_names_of_gluon(name: str, tensors: list[str]) -> None:
    assert set(tensors) <= {tensor.name for tensor in skeleton(name).graph.initializer}


@pytest.mark.parametrize("name", ["resnet18_v1", "resnet50_v1", "resnet50_v2", "mobilenetv2"])
def test_onnx_accepts_it(name: str) -> None:
    onnx.checker.check_model(onnx.load_from_string(serialized(name)), full_check=True)


def test_generation_is_reproducible() -> None:
    again = synthetic.build(CATALOG["mobilenetv2"]).SerializeToString()
    assert again == serialized("mobilenetv2")


@pytest.mark.parametrize("name", RUN)
def test_logits_are_finite_and_have_the_spread_of_a_trained_model(name: str) -> None:
    assert np.isfinite(logits(name)).all()
    assert 1.5 < np.median(logits(name).std(axis=1)) < 4.5
    fifth = [np.sort(softmax(row))[-5] for row in logits(name)]
    assert min(fifth) > np.finfo(np.float32).tiny


@pytest.mark.parametrize("name", RUN)
def test_logits_depend_on_the_image(name: str) -> None:
    values = logits(name)
    common = values.mean(axis=0).var() / values.var(axis=1).mean()
    assert common < 0.5
    assert len(set(values.argmax(axis=1))) > len(values) // 2


@pytest.mark.parametrize("name", ["resnet152_v1", "resnet152_v2", "mobilenetv2"])
def test_rounding_errors_do_not_grow(name: str) -> None:
    plain = session_of(name, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    for image, expected in zip(images()[::4], logits(name)[::4], strict=True):
        ((values,),) = plain.run(None, {"data": image[None]})
        np.testing.assert_allclose(softmax(values), softmax(expected), atol=3e-5)


def test_a_batch_has_the_same_scores_as_its_single_images() -> None:
    (values,) = session_of("resnet18_v2").run(None, {"data": images()[:4]})
    for row, expected in zip(values, logits("resnet18_v2")[:4], strict=True):
        np.testing.assert_allclose(softmax(row), softmax(expected), atol=1e-5)
