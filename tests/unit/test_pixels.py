"""The nodes around a graph, which make its input pixels and its output a score a class."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper

from scripts.repository.errors import BuildError
from scripts.repository.graphs import pixels, tensors
from scripts.repository.graphs.last_nodes import Quantization
from scripts.repository.graphs.pixels import with_pixels
from scripts.repository.graphs.prepare import Prepared, prepare
from scripts.repository.graphs.scores import Scores, probabilities
from scripts.repository.graphs.signature import Signature
from scripts.repository.steps.preprocess.recipe import Recipe, square
from tests import reference
from tests.graphs import FLEXIBLE, Array, classifier, imagenet

RECIPE = square(37, 32)
AS_THEY_ARE: dict[str, Any] = {"pixel_range": (0.0, 255.0), "mean": (0.0,), "std": (1.0,)}
NORMALIZATIONS: dict[str, dict[str, Any]] = {
    "imagenet": {},
    "none": AS_THEY_ARE,
    "caffe": AS_THEY_ARE | {"mean": (123.68, 116.779, 103.939)},
    "tensorflow": AS_THEY_ARE | {"pixel_range": (-1.0, 1.0)},
    "scale": AS_THEY_ARE | {"pixel_range": (0.0, 1.0)},
}
ONNX_TYPES = {"FP32": 1, "UINT8": 2, "INT8": 3, "FP16": 10, "FP64": 11}


def run(model: onnx.ModelProto, values: Array, output: str | None = None) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (image,) = session.get_inputs()
    (result,) = session.run([output or session.get_outputs()[0].name], {image.name: values})
    return np.asarray(result)


def identity(
    data_type: str, image: list[int | str], scores: list[int | str] | None = None
) -> onnx.ModelProto:
    """A graph that gives its input, which shows what the nodes around it do."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["scores"])],
        "identity",
        [helper.make_tensor_value_info("image", ONNX_TYPES[data_type], image)],
        [helper.make_tensor_value_info("scores", ONNX_TYPES[data_type], scores or image)],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def pictures(recipe: Recipe) -> npt.NDArray[np.uint8]:
    shape = (2, *recipe.crop, recipe.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def prepared_for(recipe: Recipe, layout: str, data_type: str) -> Prepared:
    (height, width), channels = recipe.crop, recipe.channels
    dims = [channels, height, width] if layout == "NCHW" else [height, width, channels]
    signature = Signature(
        "image", "scores", None, height, width, channels, layout, data_type, data_type, (10,)
    )
    model = identity(data_type, ["N", *dims])
    return Prepared(model, signature, Scores("logits", "its values", 10))


def head_of(recipe: Recipe, prepared: Prepared) -> Array:
    """Compute the input of the graph in onnxruntime."""
    model = with_pixels(prepared, recipe)
    data_type = ONNX_TYPES[prepared.signature.input_type]
    model.graph.output.append(helper.make_tensor_value_info("image", data_type, None))
    return run(model, pictures(recipe), "image")


def expected(recipe: Recipe, layout: str) -> npt.NDArray[np.float64]:
    """Compute the input of the graph by the definition of the recipe's fields."""
    low, high = recipe.pixel_range
    scaled = low + pictures(recipe).astype(np.float64) / 255 * (high - low)
    images = (scaled - recipe.mean) / recipe.std
    images = images[..., ::-1] if recipe.colour == "bgr" else images
    return images.transpose(0, 3, 1, 2) if layout == "NCHW" else images


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("data_type", ["FP32", "FP16", "FP64"])
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_pixels_become_the_input_of_the_graph(
    layout: str, data_type: str, colour: str, normalization: str
) -> None:
    recipe = Recipe((9, 9), (8, 6), colour=colour, **NORMALIZATIONS[normalization])
    prepared = prepared_for(recipe, layout, data_type)
    found = head_of(recipe, prepared)
    computed = tensors.tensor(pictures(recipe), recipe, prepared.signature)
    assert found.dtype == computed.dtype == tensors.NUMPY_TYPES[data_type]
    error = 1e-3 if data_type == "FP16" else 1e-6
    np.testing.assert_allclose(found, expected(recipe, layout), rtol=error, atol=20 * error)
    np.testing.assert_allclose(computed, expected(recipe, layout), rtol=error, atol=20 * error)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("data_type", ["FP32", "FP16"])
@pytest.mark.parametrize("normalization", [AS_THEY_ARE, {"mean": (0.4,), "std": (0.3,)}])
def test_grey_pixels_become_the_input_of_the_graph(
    layout: str, data_type: str, normalization: dict[str, Any]
) -> None:
    recipe = Recipe((9, 9), (8, 6), colour="grey", **normalization)
    prepared = prepared_for(recipe, layout, data_type)
    found = head_of(recipe, prepared)
    computed = tensors.tensor(pictures(recipe), recipe, prepared.signature)
    np.testing.assert_allclose(found, expected(recipe, layout), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(computed, found, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("colour", ["rgb", "bgr", "grey"])
def test_a_graph_that_takes_uint8_gets_the_pixels(layout: str, colour: str) -> None:
    recipe = Recipe((9, 9), (8, 6), colour=colour, **AS_THEY_ARE)
    prepared = prepared_for(recipe, layout, "UINT8")
    found = head_of(recipe, prepared)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected(recipe, layout))
    computed = tensors.tensor(pictures(recipe), recipe, prepared.signature)
    np.testing.assert_array_equal(computed, found)


def test_a_graph_that_takes_uint8_cannot_be_given_normalised_pixels() -> None:
    with pytest.raises(BuildError, match=r"takes UINT8 .*; use --normalization none"):
        with_pixels(prepared_for(RECIPE, "NCHW", "UINT8"), RECIPE)


@pytest.mark.parametrize(
    ("layout", "data_type", "fields", "operators"),
    [
        ("NCHW", "FP32", {}, ["Transpose", "Cast", "Mul", "Add"]),
        ("NCHW", "FP32", AS_THEY_ARE, ["Transpose", "Cast"]),
        ("NHWC", "FP32", {}, ["Cast", "Mul", "Add"]),
        ("NHWC", "FP16", {}, ["Cast", "Mul", "Add", "Cast"]),
        ("NHWC", "FP16", AS_THEY_ARE, ["Cast"]),
        ("NHWC", "FP32", NORMALIZATIONS["caffe"], ["Cast", "Add"]),
        ("NHWC", "FP32", NORMALIZATIONS["scale"], ["Cast", "Mul"]),
        ("NCHW", "FP32", {"colour": "bgr"}, ["Transpose", "Gather", "Cast", "Mul", "Add"]),
        ("NHWC", "UINT8", AS_THEY_ARE, ["Identity"]),
    ],
)
def test_nodes_that_do_nothing_are_left_out(
    layout: str, data_type: str, fields: dict[str, Any], operators: list[str]
) -> None:
    recipe = square(9, 8, **fields)
    model = with_pixels(prepared_for(recipe, layout, data_type), recipe)
    own = [node.op_type for node in model.graph.node]
    assert own[: len(operators)] == operators
    assert own[len(operators)] == "Identity"


def test_pixels_and_normalised_tensors_have_the_same_scores() -> None:
    prepared = prepare(classifier(FLEXIBLE), size=(32, 32))
    images = pictures(RECIPE)
    normal = np.stack([reference.normalized(each.astype(np.int64)) for each in images])
    model = with_pixels(prepared, RECIPE)
    np.testing.assert_allclose(run(model, images), run(prepared.model, normal), atol=1e-5)


def test_the_input_is_uint8_with_a_variable_batch() -> None:
    model = with_pixels(prepare(imagenet()), Recipe())
    onnx.checker.check_model(model, full_check=True)
    (image,) = model.graph.input
    tensor = image.type.tensor_type
    assert (image.name, tensor.elem_type) == ("PIXELS", onnx.TensorProto.UINT8)
    assert [dim.dim_param or dim.dim_value for dim in tensor.shape.dim] == ["N", 224, 224, 3]


def tail_of(values: Array, data_type: str, scores: Scores) -> Array:
    """Compute what is served from a graph's output [N, ...]."""
    dims = [int(dim) for dim in values.shape[1:]]
    signature = Signature(
        "image", "scores", None, 1, 1, 1, "NHWC", "UINT8", data_type, output_dims=tuple(dims)
    )
    # The graph ignores the image and gives the values.
    model = identity("UINT8", ["N", 1, 1, 1])
    model.graph.node[0].CopyFrom(helper.make_node("Identity", ["values"], ["scores"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, "values"))
    output = helper.make_tensor_value_info("scores", ONNX_TYPES[data_type], ["N", *dims])
    model.graph.output[0].CopyFrom(output)
    prepared = Prepared(model, signature, scores)
    served = with_pixels(prepared, Recipe((1, 1), (1, 1), colour="grey", **AS_THEY_ARE))
    onnx.checker.check_model(served, full_check=True)
    assert [value.name for value in served.graph.output] == [pixels.output(prepared)]
    return run(served, np.zeros((len(values), 1, 1, 1), np.uint8))


LOGITS = np.array([[1.5, -2, 0.5], [0.1, 3, -1]], np.float32)


@pytest.mark.parametrize("data_type", ["FP32", "FP16", "FP64"])
@pytest.mark.parametrize("dims", [(3,), (3, 1, 1), (1, 1, 3)])
def test_scores_become_fp32_with_one_number_a_class(data_type: str, dims: tuple[int, ...]) -> None:
    values = LOGITS.reshape(2, *dims).astype(tensors.NUMPY_TYPES[data_type])
    served = tail_of(values, data_type, Scores("logits", "its values", 3))
    assert served.dtype == np.float32
    np.testing.assert_allclose(served, LOGITS, atol=1e-3)


def test_logits_of_independent_labels_get_a_sigmoid() -> None:
    scores = Scores("sigmoid", "--scores", 3, needs_sigmoid=True)
    served = tail_of(LOGITS, "FP32", scores)
    np.testing.assert_allclose(served, probabilities(LOGITS, scores), atol=1e-6)


@pytest.mark.parametrize("dims", [(1,), (), (1, 1, 1)])
@pytest.mark.parametrize("needs_sigmoid", [True, False])
def test_one_score_an_image_becomes_two_classes(dims: tuple[int, ...], needs_sigmoid: bool) -> None:
    values = np.array([0.2, 0.9], np.float32).reshape(2, *dims)
    scores = Scores("sigmoid", "--scores", 2, is_single=True, needs_sigmoid=needs_sigmoid)
    served = tail_of(values, "FP32", scores)
    assert served.shape == (2, 2)
    np.testing.assert_allclose(served, probabilities(values, scores), atol=1e-6)
    np.testing.assert_allclose(served.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("data_type", ["UINT8", "INT8"])
def test_quantised_scores_become_numbers(data_type: str) -> None:
    values = np.array([[3, 7, 110], [100, 0, 3]], np.dtype(data_type.lower()))
    scores = Scores("logits", "its values", 3, quantization=Quantization(0.25, 3))
    np.testing.assert_allclose(tail_of(values, data_type, scores), (values - 3.0) * 0.25)


def test_scores_that_need_no_change_keep_their_name() -> None:
    prepared = prepare(imagenet())
    assert pixels.output(prepared) == "scores"
    assert with_pixels(prepared, Recipe()).graph.output[0] == prepared.model.graph.output[0]


def test_other_outputs_are_left_out() -> None:
    prepared = prepared_for(RECIPE, "NCHW", "FP32")
    features = helper.make_tensor_value_info("image", 1, ["N", 3, 32, 32])
    prepared.model.graph.output.insert(0, features)
    model = with_pixels(prepared, RECIPE)
    assert [value.name for value in model.graph.output] == ["scores"]


def test_the_original_graph_is_not_modified() -> None:
    prepared = prepare(classifier(FLEXIBLE), size=(32, 32))
    before = prepared.model.SerializeToString(deterministic=True)
    with_pixels(prepared, RECIPE)
    assert prepared.model.SerializeToString(deterministic=True) == before


def test_a_graph_that_already_has_a_tensor_called_pixels_is_rejected() -> None:
    model = classifier(FLEXIBLE)
    name = model.graph.input[0].name
    model.graph.input[0].name = "PIXELS"
    for node in model.graph.node:
        node.input[:] = ["PIXELS" if each == name else each for each in node.input]
    with pytest.raises(BuildError, match="called PIXELS; export it with another name"):
        with_pixels(prepare(model, size=(32, 32)), RECIPE)
