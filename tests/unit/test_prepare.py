"""Preparing graphs: what changes, what stays, and what is rejected."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from scripts.repository.errors import BuildError
from scripts.repository.graphs.opset import IR_VERSIONS, OPSETS
from scripts.repository.graphs.prepare import prepare
from tests import graphs
from tests.graphs import FLEXIBLE, RESHAPED, Array, classifier, shape


def run(model: onnx.ModelProto, images: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    scores: Array = session.run(["scores"], {"image": images})[0]
    return scores


def pictures(count: int, height: int = 32, width: int = 32) -> Array:
    rng = np.random.default_rng(1)
    return rng.standard_normal((count, 3, height, width)).astype(np.float32)


@pytest.mark.parametrize("dims", [(1, -1), (1, 3), (-1, 3), (0, -1), (0, 3)])
def test_a_fixed_batch_becomes_variable_in_reshape_constants(dims: tuple[int, ...]) -> None:
    original = classifier(RESHAPED, initializers=shape(*dims))
    prepared = prepare(original).model
    images = pictures(5)
    one_by_one = [run(original, image[None]) for image in images]
    np.testing.assert_allclose(run(prepared, images), np.concatenate(one_by_one), atol=1e-6)
    assert prepared.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_a_fixed_batch_of_four_becomes_variable() -> None:
    original = classifier(
        RESHAPED, image="float[4,3,32,32]", scores="float[4,10]", initializers=shape(4, -1)
    )
    assert run(prepare(original).model, pictures(3)).shape == (3, graphs.CLASSES)


@pytest.mark.parametrize("dims", [(1, -1), (1, 3)])
def test_a_batch_that_is_only_declared_symbolic_becomes_variable(dims: tuple[int, ...]) -> None:
    original = classifier(
        RESHAPED, image="float[N,3,32,32]", scores="float[N,10]", initializers=shape(*dims)
    )
    images = pictures(5)
    one_by_one = [run(original, image[None]) for image in images]
    together = run(prepare(original).model, images)
    np.testing.assert_allclose(together, np.concatenate(one_by_one), atol=1e-6)


def test_heads_that_are_folded_into_the_batch_stay_with_their_image() -> None:
    body = """
        pooled = GlobalAveragePool(image)
        folded = Reshape(pooled, fold)
        doubled = Add(folded, folded)
        features = Reshape(doubled, shape)
        scores = MatMul(features, weight)
    """
    original = classifier(body, initializers=shape(1, 3) | {"fold": np.array([3, 1], np.int64)})
    images = pictures(4)
    one_by_one = [run(original, image[None]) for image in images]
    together = run(prepare(original).model, images)
    np.testing.assert_allclose(together, np.concatenate(one_by_one), atol=1e-6)


def test_a_shape_from_a_constant_node_becomes_variable() -> None:
    body = RESHAPED.replace("features =", "shape = Constant<value_ints = [1, -1]>() features =")
    body = body.replace("value_ints = [1, -1]", "value = int64[2] {1, -1}")
    assert run(prepare(classifier(body)).model, pictures(3)).shape == (3, graphs.CLASSES)


def test_a_reshape_with_allowzero_becomes_variable() -> None:
    body = RESHAPED.replace("Reshape(", "Reshape<allowzero = 1>(")
    prepared = prepare(classifier(body, opset=14, initializers=shape(1, -1)))
    assert run(prepared.model, pictures(3)).shape == (3, graphs.CLASSES)


JOINED = """
    pooled = GlobalAveragePool(image)
    features = Flatten(pooled)
    both = Concat<axis = 1>(token, features)
    scores = MatMul(both, dense)
"""
TOKEN = {"token": np.ones((1, 2), np.float32), "dense": np.ones((5, 10), np.float32)}


@pytest.mark.parametrize(
    "body",
    [
        JOINED,
        JOINED.replace("both =", "same = Identity(token) both =").replace("(token, f", "(same, f"),
        JOINED.replace("both =", "wide = Expand(token, shape) both =").replace(
            "(token, f", "(wide, f"
        ),
    ],
)
def test_a_constant_that_is_concatenated_to_each_image_is_repeated(body: str) -> None:
    # Such as the class token of a vision transformer.
    original = classifier(body, initializers=TOKEN | shape(1, 2))
    images = pictures(4)
    one_by_one = [run(original, image[None]) for image in images]
    together = run(prepare(original).model, images)
    np.testing.assert_allclose(together, np.concatenate(one_by_one), atol=1e-6)


def test_a_batch_that_cannot_become_variable_is_rejected_without_other_output(
    capfd: pytest.CaptureFixture[str],
) -> None:
    body = FLEXIBLE.replace("scores =", "each =") + "scores = Slice(each, zero, one, zero)"
    numbers = {"zero": np.array([0]), "one": np.array([1])}
    with pytest.raises(BuildError, match="and an example of at least two images"):
        prepare(classifier(body, initializers=numbers))
    assert capfd.readouterr().err == ""


def test_a_constant_that_other_nodes_use_is_kept_for_them() -> None:
    body = RESHAPED.replace("scores = MatMul(features", "zeros = ConstantOfShape(shape) ")
    body = body.replace(", weight)", "sum = Add(features, zeros) scores = MatMul(sum, weight)")
    prepared = prepare(classifier(body, initializers=shape(1, 3)))
    kept = {tensor.name: tensor for tensor in prepared.model.graph.initializer}
    assert numpy_helper.to_array(kept["shape"]).tolist() == [1, 3]


def test_height_and_width_become_variable_if_the_graph_supports_it() -> None:
    prepared = prepare(classifier(FLEXIBLE))
    assert (prepared.signature.height, prepared.signature.width) == (None, None)
    assert run(prepared.model, pictures(2, 50, 70)).shape == (2, graphs.CLASSES)


@pytest.mark.parametrize("size", ["32,32", "H,W"])
def test_height_and_width_stay_fixed_if_the_graph_needs_them(size: str) -> None:
    body = "flat = Flatten(image) scores = MatMul(flat, dense)"
    dense = np.random.default_rng(0).standard_normal((3 * 32 * 32, 10)).astype(np.float32)
    original = classifier(body, image=f"float[1,3,{size}]", initializers={"dense": dense})
    prepared = prepare(original, size=(32, 32))
    assert (prepared.signature.height, prepared.signature.width) == (32, 32)
    assert run(prepared.model, pictures(3)).shape == (3, graphs.CLASSES)


def test_initializers_are_removed_from_the_inputs() -> None:
    original = classifier(FLEXIBLE, ir_version=3, opset=7)
    weight = onnx.helper.make_tensor_value_info("weight", onnx.TensorProto.FLOAT, [3, 10])
    original.graph.input.append(weight)
    assert [value.name for value in prepare(original).model.graph.input] == ["image"]


@pytest.mark.parametrize(("opset", "ir_version"), [(7, 3), (13, 8), (21, 10), (22, 10), (23, 11)])
def test_opset_and_ir_version_are_converted_to_supported_ones(opset: int, ir_version: int) -> None:
    original = classifier(FLEXIBLE, opset=opset, ir_version=ir_version)
    prepared = prepare(original)
    assert OPSETS[0] <= prepared.opset <= OPSETS[1]
    assert IR_VERSIONS[0] <= prepared.model.ir_version <= IR_VERSIONS[1]
    np.testing.assert_allclose(
        run(prepared.model, pictures(1)), run(original, pictures(1)), atol=1e-6
    )


def test_tensor_names_are_kept() -> None:
    signature = prepare(classifier(FLEXIBLE)).signature
    assert (signature.input, signature.output) == ("image", "scores")


def test_the_original_graph_is_not_modified() -> None:
    original = classifier(RESHAPED, initializers=shape(1, -1))
    before = original.SerializeToString(deterministic=True)
    prepare(original)
    assert original.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("last", "scores"),
    [
        ("scores = Identity(logits)", "logits"),
        ("scores = Softmax(logits)", "probabilities"),
        ("softmax = Softmax(logits) scores = Identity(softmax)", "probabilities"),
    ],
)
def test_a_graph_that_ends_in_a_softmax_outputs_probabilities(last: str, scores: str) -> None:
    body = FLEXIBLE.replace("scores =", "logits =") + last
    assert prepare(classifier(body)).scores.kind == scores


def test_scores_that_differ_from_the_original_are_rejected() -> None:
    # The mean over the batch makes the scores depend on the batch size.
    body = FLEXIBLE.replace("scores =", "each =")
    body += "mean = ReduceMean<axes = [0]>(each) scores = Sub(each, mean)"
    with pytest.raises(
        BuildError, match=r"differ from the original by .*; export it with a dynamic"
    ):
        prepare(classifier(body))


def test_a_graph_that_onnxruntime_cannot_load_is_rejected_in_one_line() -> None:
    with pytest.raises(BuildError, match="onnxruntime cannot load the graph") as caught:
        prepare(classifier("scores = NoSuchOperator(image)"))
    assert "\n" not in str(caught.value)
