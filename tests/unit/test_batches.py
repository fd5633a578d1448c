"""Batches: what becomes variable, what is computed image by image in a loop, and what is equal."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from scripts.repository import onnx_file
from scripts.repository.errors import BuildError
from scripts.repository.graphs.prepare import Prepared, prepare
from scripts.repository.graphs.tensors import NUMPY_TYPES
from tests import graphs
from tests.graphs import CLASSES, FLEXIBLE, RESHAPED, Array, classifier, shape


def run(model: onnx.ModelProto, images: Array, output: str = "scores") -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    scores: Array = session.run([output], {"image": images})[0]
    return scores


def pictures(count: int, height: int = 32, width: int = 32) -> Array:
    rng = np.random.default_rng(1)
    return rng.standard_normal((count, 3, height, width)).astype(np.float32)


def assert_same_in_batches(prepared: Prepared, original: onnx.ModelProto) -> None:
    """Compare with the original, which takes one image."""
    images = pictures(5)
    one_by_one = np.concatenate([run(original, image[None]) for image in images])
    for count in (1, 2, 5):
        together = run(prepared.model, images[:count])
        np.testing.assert_allclose(together, one_by_one[:count], atol=1e-6)


@pytest.mark.parametrize("dims", [(1, -1), (1, 3), (-1, 3), (0, -1), (0, 3)])
def test_a_fixed_batch_becomes_variable_in_reshape_constants(dims: tuple[int, ...]) -> None:
    original = classifier(RESHAPED, initializers=shape(*dims))
    prepared = prepare(original)
    assert prepared.batches == "variable"
    assert_same_in_batches(prepared, original)
    assert prepared.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_a_fixed_batch_of_four_becomes_variable() -> None:
    original = classifier(
        RESHAPED, image="float[4,3,32,32]", scores="float[4,10]", initializers=shape(4, -1)
    )
    prepared = prepare(original)
    assert prepared.batches == "variable"
    assert run(prepared.model, pictures(3)).shape == (3, graphs.CLASSES)


@pytest.mark.parametrize("dims", [(1, -1), (1, 3)])
def test_a_batch_that_is_only_declared_symbolic_becomes_variable(dims: tuple[int, ...]) -> None:
    original = classifier(
        RESHAPED, image="float[N,3,32,32]", scores="float[N,10]", initializers=shape(*dims)
    )
    prepared = prepare(original)
    assert prepared.batches == "variable"
    assert_same_in_batches(prepared, original)


def test_heads_that_are_folded_into_the_batch_stay_with_their_image() -> None:
    body = """
        pooled = GlobalAveragePool(image)
        folded = Reshape(pooled, fold)
        doubled = Add(folded, folded)
        features = Reshape(doubled, shape)
        scores = MatMul(features, weight)
    """
    original = classifier(body, initializers=shape(1, 3) | {"fold": np.array([3, 1], np.int64)})
    assert_same_in_batches(prepare(original), original)


@pytest.mark.parametrize("value", ["value = int64[2] {1, -1}", "value_ints = [1, -1]"])
def test_a_shape_from_a_constant_node_becomes_variable(value: str) -> None:
    body = RESHAPED.replace("features =", f"shape = Constant<{value}>() features =")
    prepared = prepare(classifier(body))
    assert prepared.batches == "variable"
    assert run(prepared.model, pictures(3)).shape == (3, graphs.CLASSES)


def test_a_reshape_with_allowzero_becomes_variable() -> None:
    body = RESHAPED.replace("Reshape(", "Reshape<allowzero = 1>(")
    prepared = prepare(classifier(body, opset=14, initializers=shape(1, -1)))
    assert prepared.batches == "variable"
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
    prepared = prepare(original)
    assert prepared.batches == "variable"
    assert_same_in_batches(prepared, original)


def test_a_constant_for_each_of_four_images_is_repeated() -> None:
    token = TOKEN | {"token": np.tile(TOKEN["token"], (4, 1))}
    original = classifier(
        JOINED, image="float[4,3,32,32]", scores="float[4,10]", initializers=token
    )
    prepared = prepare(original)
    assert prepared.batches == "variable"
    single = classifier(JOINED, initializers=TOKEN)
    assert_same_in_batches(prepared, single)


def test_constants_that_differ_between_the_images_of_a_batch_are_not_repeated() -> None:
    token = TOKEN | {"token": np.arange(8, dtype=np.float32).reshape(4, 2)}
    original = classifier(
        JOINED, image="float[4,3,32,32]", scores="float[4,10]", initializers=token
    )
    with pytest.raises(BuildError, match="depend on the other images of its batch"):
        prepare(original)


def test_a_constant_that_other_nodes_use_is_kept_for_them() -> None:
    body = RESHAPED.replace("scores = MatMul(features", "zeros = ConstantOfShape(shape) ")
    body = body.replace(", weight)", "sum = Add(features, zeros) scores = MatMul(sum, weight)")
    original = classifier(body, initializers=shape(1, 3))
    assert_same_in_batches(prepare(original), original)


NUMBERS = {"zero": np.array([0]), "one": np.array([1]), "flat": np.array([-1])}
FIRST_ONLY = FLEXIBLE.replace("scores =", "each =") + "scores = Slice(each, zero, one, zero)"
# What torch.onnx.export writes for `flatten` with an example of one image.
STRIDED = FLEXIBLE.replace(
    "features = Flatten(pooled)",
    "line = Reshape(pooled, flat) picked = Gather(line, three) features = Reshape(picked, shape)",
)
SQUEEZED = FLEXIBLE.replace(
    "features = Flatten(pooled)", "line = Squeeze(pooled) features = Unsqueeze(line, zero)"
)
CENTRED = FLEXIBLE.replace("scores =", "each =")
CENTRED += "mean = ReduceMean<axes = [0]>(each) sum = Add(each, mean) scores = Identity(sum)"


@pytest.mark.parametrize(
    ("body", "batch"),
    [(FIRST_ONLY, "1"), (STRIDED, "1"), (STRIDED, "N"), (SQUEEZED, "1"), (CENTRED, "1")],
)
def test_what_holds_its_batch_of_one_is_run_in_a_loop(body: str, batch: str) -> None:
    values = NUMBERS | shape(1, 3) | {"three": np.arange(3)}
    declared = {"image": f"float[{batch},3,32,32]", "scores": f"float[{batch},{CLASSES}]"}
    original = classifier(body, initializers=values, **declared)  # type: ignore[arg-type]
    prepared = prepare(original)
    assert (prepared.batches, prepared.difference) == ("loop", 0)
    assert_same_in_batches(prepared, original)


@pytest.mark.parametrize("opset", [7, 8, 11, 15, 18, 21])
def test_a_loop_is_written_in_every_opset(opset: int) -> None:
    body = FLEXIBLE.replace("scores =", "each =")
    body += "transposed = Transpose(each) summed = MatMul(each, transposed)"
    body += "scaled = Mul(each, summed) scores = Reshape(scaled, one_row)"
    original = classifier(body, opset=opset, initializers={"one_row": np.array([1, CLASSES])})
    prepared = prepare(original)
    assert prepared.batches == "loop"
    assert_same_in_batches(prepared, original)


def test_the_weights_of_a_loop_are_inside() -> None:
    tail = """
        zero = Constant<value = int64[1] {0}>()
        one = Constant<value = int64[1] {1}>()
        scores = Slice(each, zero, one, zero)
    """
    prepared = prepare(graphs.convolved(graphs.CONVOLVED.replace("scores =", "each =") + tail))
    (scan,) = (node for node in prepared.model.graph.node if node.op_type == "Scan")
    inside = {tensor.name for tensor in scan.attribute[0].g.initializer}
    assert "filters" in inside
    assert all(tensor.name.startswith("loop/") for tensor in prepared.model.graph.initializer)


def test_the_weights_of_a_loop_of_more_than_2_gib_are_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 1000)  # instead of 2 GiB
    monkeypatch.setattr("scripts.repository.graphs.weights.INLINE", 100)
    original = classifier(FIRST_ONLY, initializers=NUMBERS | {"doc": np.zeros(300, np.float32)})
    prepared = prepare(original)
    assert prepared.batches == "loop"
    assert "weight" in {tensor.name for tensor in prepared.model.graph.initializer}
    assert_same_in_batches(prepared, original)


def test_constants_that_only_subgraphs_use_are_kept() -> None:
    branch = "then () => (float[1,3] doubled) { doubled = Mul(features, two) }"
    other = "else () => (float[1,3] same) { same = Identity(features) }"
    nodes = "sum = ReduceSum<keepdims = 0>(features) positive = Cast<to = 9>(sum)"
    nodes += f"chosen = If(positive) <then_branch = {branch}, else_branch = {other}>"
    body = RESHAPED.replace("scores =", f"{nodes} scores =").replace("(features, w", "(chosen, w")
    values = shape(1, 3) | {"two": np.array([2], np.float32)}
    original = classifier(body, initializers=values)
    assert_same_in_batches(prepare(original), original)


def of_batch(batch: int) -> onnx.ModelProto:
    """A graph that holds its batch size, because images are joined and parted again."""
    body = """
        pooled = GlobalAveragePool(image)
        row = Reshape(pooled, row_shape)
        doubled = Add(row, steps)
        features = Reshape(doubled, shape)
        scores = MatMul(features, weight)
    """
    values = {"row_shape": np.array([1, 3 * batch]), "steps": np.ones((1, 3 * batch), np.float32)}
    return classifier(
        body,
        image=f"float[{batch},3,32,32]",
        scores=f"float[{batch},{CLASSES}]",
        initializers=values | shape(batch, 3),
    )


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_what_holds_a_batch_of_four_is_run_in_batches_of_four(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    original = of_batch(4)
    prepared = prepare(original)
    assert prepared.batches == "loop"
    assert "takes 4 images at a time" in caplog.text
    images = pictures(count)
    filled = np.concatenate([images, pictures(4)])
    expected = np.concatenate([run(original, filled[at : at + 4]) for at in range(0, count, 4)])
    np.testing.assert_allclose(run(prepared.model, images), expected[:count], atol=1e-6)


@pytest.mark.parametrize(
    ("layout", "data_type"),
    [("NCHW", "FP16"), ("NHWC", "FP32"), ("NHWC", "UINT8"), ("NCHW", "UINT8"), ("NCHW", "FP64")],
)
@pytest.mark.parametrize("batch", ["1", "N"])
def test_layouts_and_types_are_kept(layout: str, data_type: str, batch: str) -> None:
    element = {"FP16": "float16", "FP32": "float", "UINT8": "uint8", "FP64": "double"}[data_type]
    dims = "3,32,32" if layout == "NCHW" else "32,32,3"
    body = "real = Cast<to = 1>(image) "
    if layout == "NHWC":
        body += "planes = Transpose<perm = [0, 3, 1, 2]>(real) "
    body += STRIDED.replace("(image)", "(planes)" if layout == "NHWC" else "(real)")
    values = NUMBERS | shape(1, 3) | {"three": np.arange(3)}
    original = classifier(
        body,
        image=f"{element}[{batch},{dims}]",
        scores=f"float[{batch},{CLASSES}]",
        initializers=values,
    )
    prepared = prepare(original)
    assert (prepared.batches, prepared.difference) == ("loop", 0)
    assert prepared.signature.input_type == data_type
    assert prepared.signature.layout == layout
    rng = np.random.default_rng(2)
    sizes = [int(dim) for dim in dims.split(",")]
    images = rng.integers(0, 256, (3, *sizes)).astype(NUMPY_TYPES[data_type])
    one_by_one = np.concatenate([run(original, image[None]) for image in images])
    np.testing.assert_allclose(run(prepared.model, images), one_by_one, rtol=1e-6)


def with_features(body: str) -> onnx.ModelProto:
    values = NUMBERS | shape(1, 3) | {"three": np.arange(3)}
    model = classifier(body, initializers=values)
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, None))
    return model


@pytest.mark.parametrize(("body", "batches"), [(FLEXIBLE, "variable"), (STRIDED, "loop")])
def test_other_outputs_are_kept(body: str, batches: str) -> None:
    original = with_features(body)
    prepared = prepare(original, output="scores")
    assert prepared.batches == batches
    images = pictures(3)
    one_by_one = [run(original, image[None], "features") for image in images]
    together = run(prepared.model, images, "features")
    np.testing.assert_allclose(together, np.concatenate(one_by_one), atol=1e-6)
    scores, features = (value.type.tensor_type.shape.dim for value in prepared.model.graph.output)
    assert [(dim.dim_param, dim.dim_value) for dim in scores] == [("N", 0), ("", CLASSES)]
    assert (features[0].dim_param != "", features[1].dim_value) == (True, 3)


def test_an_output_without_a_shape_gets_one() -> None:
    original = classifier(FLEXIBLE)
    original.graph.output[0].type.tensor_type.ClearField("shape")
    prepared = prepare(original)
    assert prepared.signature.output_dims == (CLASSES,)
    dims = prepared.model.graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [0, CLASSES]


def test_a_symbolic_number_of_channels_is_written_into_the_input() -> None:
    original = classifier(FLEXIBLE, image="float[N,C,H,W]", scores=f"float[N,{CLASSES}]")
    dims = prepare(original).model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [0, 3, 0, 0]


def test_what_cannot_be_put_into_a_loop_is_refused_with_how_to_export_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    # Opset 9, the first with loops over images, has no normalisation of each pixel.
    body = """
        normal = BatchNormalization<spatial = 0>(image, ones, ones, ones, ones)
        pooled = GlobalAveragePool(normal)
        features = Flatten(pooled)
        each = MatMul(features, weight)
        scores = Slice<axes = [0], starts = [0], ends = [1]>(each)
    """
    ones = {"ones": np.ones((3, 32, 32), np.float32)}
    with pytest.raises(BuildError, match=r"dynamic_shapes=.*torch\.export\.Dim.*dynamic_axes"):
        prepare(classifier(body, opset=7, initializers=ones))
    assert capfd.readouterr().err == ""
