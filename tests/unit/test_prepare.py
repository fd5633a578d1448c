"""Preparing graphs: image sizes, versions, what is kept and what is rejected."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from scripts.repository.errors import BuildError
from scripts.repository.graphs.engines import load
from scripts.repository.graphs.opset import IR_VERSIONS, OPSETS
from scripts.repository.graphs.prepare import prepare
from tests import graphs
from tests.graphs import CLASSES, FLEXIBLE, RESHAPED, SOFTMAXED, Array, classifier, shape


def run(model: onnx.ModelProto, images: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    scores: Array = session.run(["scores"], {"image": images})[0]
    return scores


def pictures(count: int, height: int = 32, width: int = 32) -> Array:
    rng = np.random.default_rng(1)
    return rng.standard_normal((count, 3, height, width)).astype(np.float32)


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


def test_a_graph_that_onnxruntime_cannot_load_is_rejected_in_one_line() -> None:
    with pytest.raises(BuildError, match="onnxruntime cannot load the graph") as caught:
        prepare(classifier("scores = NoSuchOperator(image)"))
    assert "\n" not in str(caught.value)


PATCHED = """
    patches = Reshape(image, patches_shape)
    features = ReduceMean<axes = [2], keepdims = 0>(patches)
    scores = MatMul(features, weight)
"""


def patched(side: int) -> onnx.ModelProto:
    """A graph that takes any size by its shape, and only one by its nodes."""
    values = {"patches_shape": np.array([-1, 3, side * side])}
    return classifier(
        PATCHED,
        image="float[N,C,height,width]",
        scores=f"float[N,{CLASSES}]",
        initializers=values,
    )


@pytest.mark.parametrize("side", [256, 224, 299, 96])
def test_a_graph_that_takes_another_size_asks_for_it(side: int) -> None:
    with pytest.raises(BuildError, match=rf"at 200 pixels, but at {side}: say --crop {side}$"):
        prepare(patched(side), size=(200, 200))


def test_a_graph_is_prepared_with_the_size_that_it_takes() -> None:
    signature = prepare(patched(256), size=(256, 256)).signature
    assert (signature.height, signature.width) == (256, 256)


def test_a_graph_whose_dimensions_are_all_symbolic_is_prepared_in_the_layout_that_is_told() -> None:
    body = "planes = Transpose<perm = [0, 3, 1, 2]>(image)" + FLEXIBLE.replace("(image", "(planes")
    original = classifier(body, image="float[N,H,W,C]", scores=f"float[N,{CLASSES}]")
    signature = prepare(original, layout="NHWC").signature
    assert (signature.layout, signature.channels) == ("NHWC", 3)
    assert (signature.height, signature.width) == (None, None)


def test_a_graph_that_takes_no_size_is_rejected_in_one_line() -> None:
    with pytest.raises(BuildError, match="onnxruntime cannot run the graph") as caught:
        prepare(patched(99))
    assert "\n" not in str(caught.value)


def test_scores_that_are_never_finite_are_rejected() -> None:
    body = FLEXIBLE.replace("scores =", "each =")
    body += "zeros = Sub(each, each) scores = Div(each, zeros)"
    with pytest.raises(BuildError, match="no finite scores"):
        prepare(classifier(body))


NEW_OPERATORS = {
    "Attention": "taller = Unsqueeze(features, axes) attended = Attention(taller, taller, taller)"
    " mixed = Flatten(attended)",
    "RMSNormalization": "mixed = RMSNormalization(features, ones)",
    "Swish": "mixed = Swish(features)",
}


@pytest.mark.parametrize(
    ("operator", "opset", "kept", "release"),
    [
        ("Attention", 23, 23, "1.23"),
        ("RMSNormalization", 23, 23, "1.23"),
        ("Attention", 24, 24, "1.24"),
        ("Swish", 24, 24, "1.24"),
        ("Swish", 25, 24, "1.24"),  # onnxruntime has Swish of opset 24 only
    ],
)
def test_an_opset_that_cannot_be_converted_is_kept_and_said(
    operator: str, opset: int, kept: int, release: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = FLEXIBLE.replace("MatMul(features", "MatMul(mixed")
    body = body.replace("scores =", f"{NEW_OPERATORS[operator]} scores =")
    values = {"axes": np.array([1, 2]), "ones": np.ones(3, np.float32)}
    original = classifier(body, opset=opset, ir_version=12, initializers=values)
    prepared = prepare(original)
    assert (prepared.opset, prepared.model.ir_version) == (kept, IR_VERSIONS[1])
    assert caplog.messages == [
        f"the graph keeps opset {kept}, because it cannot be converted to 21; the server needs "
        f"onnxruntime {release} or later"
    ]
    one_by_one = [run(prepared.model, image[None]) for image in pictures(3)]
    np.testing.assert_allclose(
        run(prepared.model, pictures(3)), np.concatenate(one_by_one), atol=1e-6
    )


def test_an_opset_that_onnxruntime_does_not_load_is_converted() -> None:
    newest = onnx.defs.onnx_opset_version()
    assert prepare(classifier(FLEXIBLE, opset=newest, ir_version=onnx.IR_VERSION)).opset == 21


@pytest.mark.parametrize("opset", [15, 22])
def test_functions_are_inlined_and_other_operators_and_metadata_are_kept(opset: int) -> None:
    body = FLEXIBLE.replace(
        "scores =", "twice = local.Twice(features) active = com.microsoft.Gelu(twice) scores ="
    ).replace("MatMul(features", "MatMul(active")
    original = classifier(body, opset=opset)
    for domain in ("local", "com.microsoft"):
        original.opset_import.append(helper.make_opsetid(domain, 1))
    original.functions.append(
        onnx.parser.parse_function(
            f'<opset_import: ["": {opset}], domain: "local"> Twice (x) => (y) {{ y = Add(x, x) }}'
        )
    )
    original.metadata_props.add(key="names", value="{0: 'chat', 1: 'größer'}")
    prepared = prepare(original)
    assert prepared.model.metadata_props == original.metadata_props
    assert not prepared.model.functions  # OpenVINO cannot load them
    assert "Gelu" in {node.op_type for node in prepared.model.graph.node}
    np.testing.assert_allclose(
        run(prepared.model, pictures(1)), run(original, pictures(1)), atol=1e-6
    )


@pytest.mark.parametrize("opset", [13, 22])
def test_sparse_weights_are_kept(opset: int) -> None:
    original = classifier(
        SOFTMAXED.replace("(features, weight)", "(features, sparse)"), opset=opset
    )
    values = numpy_helper.from_array(np.array([3, 4], np.float32), "sparse")
    indices = numpy_helper.from_array(np.array([5, 17]), "sparse_indices")
    sparse = helper.make_sparse_tensor(values, indices, [3, CLASSES])
    original.graph.sparse_initializer.append(sparse)
    np.testing.assert_allclose(
        run(prepare(original).model, pictures(1)), run(original, pictures(1)), atol=1e-6
    )


@pytest.mark.parametrize("data_type", [TensorProto.BFLOAT16, TensorProto.UINT32])
def test_weights_that_are_written_as_larger_numbers_have_their_value_in_openvino(
    data_type: int,
) -> None:
    original = classifier(
        FLEXIBLE.replace("weight", "floats").replace(
            "scores", "floats = Cast<to = 1>(small) scores"
        ),
        opset=21,
    )
    numbers = [float(number % 7) for number in range(3 * CLASSES)]
    original.graph.initializer.append(helper.make_tensor("small", data_type, [3, CLASSES], numbers))
    prepared, images = prepare(original).model, pictures(2)
    openvino = load("openvino", prepared.SerializeToString())
    np.testing.assert_allclose(openvino(images), run(prepared, images), atol=1e-5)


def test_scores_change_by_at_most_rounding() -> None:
    assert prepare(graphs.convolved()).difference <= 1e-5


def test_a_graph_that_ignores_the_image_is_prepared_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = "nothing = Sub(image, image)" + FLEXIBLE.replace("(image)", "(nothing)")
    prepare(classifier(body))
    assert "gives the same scores for different images" in caplog.text
