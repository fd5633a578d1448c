"""Which tensors of a graph are the image and the scores."""

from dataclasses import replace

import onnx
import pytest
from onnx import TensorProto, helper

from scripts.repository.errors import BuildError
from scripts.repository.graphs.signature import Signature, read_signature, without_zip_maps
from tests.graphs import FLEXIBLE, classifier

FP32 = TensorProto.FLOAT
Dims = list[int | str | None] | None

SIGNATURE = Signature("image", "scores", None, 32, 32, output_dims=(10,))


def graph(
    inputs: dict[str, tuple[int, Dims]] | None = None,
    outputs: dict[str, tuple[int, Dims]] | None = None,
    nodes: list[onnx.NodeProto] | None = None,
) -> onnx.ModelProto:
    """Declare tensors, which are all that a signature is read from."""
    inputs = inputs or {"image": (FP32, ["N", 3, 32, 32])}
    outputs = outputs or {"scores": (FP32, ["N", 10])}
    return helper.make_model(
        helper.make_graph(
            nodes or [],
            "classifier",
            [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()],
            [helper.make_tensor_value_info(name, *value) for name, value in outputs.items()],
        )
    )


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        (["N", 3, 32, 48], replace(SIGNATURE, width=48)),
        ([4, 3, 32, 32], replace(SIGNATURE, batch=4)),
        # Optimum
        (
            ["batch_size", "num_channels", "height", "width"],
            replace(SIGNATURE, height=None, width=None),
        ),
        # Keras, tf2onnx
        (["N", 32, 32, 3], replace(SIGNATURE, layout="NHWC")),
        ([None, None, None, 3], replace(SIGNATURE, layout="NHWC", height=None, width=None)),
        (["unk__1", 32, 48, "unk__2"], replace(SIGNATURE, layout="NHWC", width=48)),
        (["N", 1, 32, 32], replace(SIGNATURE, channels=1)),
        (["N", 32, 32, 1], replace(SIGNATURE, channels=1, layout="NHWC")),
        # Variable dimensions of other exporters
        ([-1, 3, -1, 0], replace(SIGNATURE, height=None, width=None)),
        ([0, 3, 32, 32], SIGNATURE),
    ],
)
def test_the_layout_is_recognised_from_the_channels(dims: Dims, expected: Signature) -> None:
    assert read_signature(graph({"image": (FP32, dims)})) == expected


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("NCHW", replace(SIGNATURE, height=3, width=3)),
        ("NHWC", replace(SIGNATURE, height=3, width=3, layout="NHWC")),
    ],
)
def test_a_layout_that_is_told_is_believed(layout: str, expected: Signature) -> None:
    model = graph({"image": (FP32, ["N", 3, 3, 3])})
    assert read_signature(model, layout=layout) == expected


def test_symbolic_channels_are_those_of_the_first_convolution() -> None:
    model = graph({"image": (FP32, ["N", "C", 32, 32])}, nodes=[conv("image")])
    model.graph.initializer.append(helper.make_tensor("filters", FP32, [1, 1, 1, 1], [1.0]))
    assert read_signature(model) == replace(SIGNATURE, channels=1)


def conv(image: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [image, "filters"], ["filtered"])


@pytest.mark.parametrize(
    ("input_type", "output_type", "names"),
    [
        (TensorProto.FLOAT16, TensorProto.FLOAT16, ("FP16", "FP16")),
        (TensorProto.DOUBLE, TensorProto.DOUBLE, ("FP64", "FP64")),
        (TensorProto.UINT8, FP32, ("UINT8", "FP32")),
        (TensorProto.UINT8, TensorProto.UINT8, ("UINT8", "UINT8")),
    ],
)
def test_data_types_have_the_names_that_triton_uses(
    input_type: int, output_type: int, names: tuple[str, str]
) -> None:
    model = graph({"image": (input_type, ["N", 3, 32, 32])}, {"scores": (output_type, ["N", 10])})
    signature = read_signature(model)
    assert (signature.input_type, signature.output_type) == names


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        (["N", 10, 1, 1], (10, 1, 1)),
        (["N", 1, 1, 10], (1, 1, 10)),
        (["N", 1], (1,)),
        (["N"], ()),
        (["N", "classes"], (-1,)),
        (["N", 10, "h", "w"], (10, -1, -1)),
        (None, (-1,)),
    ],
)
def test_scores_can_have_any_rank(dims: Dims, expected: tuple[int, ...]) -> None:
    assert read_signature(graph(outputs={"scores": (FP32, dims)})).output_dims == expected


@pytest.mark.parametrize(
    ("outputs", "scores"),
    [
        ({"scores": ["N", 5], "features": ["N", 3]}, "scores"),
        ({"features": ["N", 3], "model/Logits:0": ["N", 5]}, "model/Logits:0"),
        ({"map": ["N", 8, 7, 7], "dense": ["N", 5]}, "dense"),
        ({"hidden": ["N", 197, 768], "dense": ["N", 5, 1, 1]}, "dense"),
    ],
)
def test_one_of_several_outputs_is_chosen_by_its_name_or_its_shape(
    outputs: dict[str, Dims], scores: str
) -> None:
    model = graph(outputs={name: (FP32, dims) for name, dims in outputs.items()})
    assert read_signature(model).output == scores


def test_an_output_that_is_told_is_believed() -> None:
    model = graph(outputs={"scores": (FP32, ["N", 5]), "second": (FP32, ["N", 3])})
    assert read_signature(model, output="second").output == "second"


def test_an_input_with_a_default_needs_no_value() -> None:
    model = graph({"image": (FP32, ["N", 3, 32, 32]), "training": (TensorProto.BOOL, [])})
    model.graph.initializer.append(helper.make_tensor("training", TensorProto.BOOL, [], [False]))
    assert read_signature(model) == SIGNATURE


def zip_map(scores: str, labels: list[str] | list[int]) -> onnx.NodeProto:
    node = helper.make_node("ZipMap", [scores], ["maps"], domain="ai.onnx.ml")
    kind = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_int64s"
    node.attribute.append(helper.make_attribute(kind, labels))
    return node


@pytest.mark.parametrize("labels", [["cat", "dog"], [0, 1]])
def test_the_tensor_before_a_zip_map_is_the_output(labels: list[str] | list[int]) -> None:
    identity = helper.make_node("Identity", ["image"], ["scores"])
    model = graph(
        outputs={"label": (TensorProto.INT64, ["N"])}, nodes=[identity, zip_map("scores", labels)]
    )
    maps = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(FP32, []))
    sequence = helper.make_sequence_type_proto(maps)
    model.graph.output.append(helper.make_value_info("maps", sequence))
    assert read_signature(model) == replace(SIGNATURE, output_dims=(2,))
    plain = without_zip_maps(model)
    assert [value.name for value in plain.graph.output] == ["label", "scores"]
    assert [node.op_type for node in plain.graph.node] == ["Identity"]
    assert [value.name for value in model.graph.output] == ["label", "maps"]


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"image": (FP32, [3, 32, 32])}, r"image \(FLOAT \[3, 32, 32\]\) is not a batch of images"),
        ({"image": (FP32, None)}, r"image \(FLOAT, no shape\) is not a batch of images"),
        ({"image": (FP32, ["N", 3, 3, 32])}, None),
        ({"image": (FP32, ["N", 3, 32, 3])}, "--layout nchw or --layout nhwc"),
        ({"image": (FP32, ["N", 4, 32, 32])}, r"\[N, 4, 32, 32\]\) has neither 3 nor 1 channels"),
        ({"text": (TensorProto.INT64, ["N", 3, 32, 32])}, "FLOAT, FLOAT16, DOUBLE or UINT8"),
        ({"image": (TensorProto.BFLOAT16, ["N", 3, 32, 32])}, "BFLOAT16"),
        (
            {"image": (FP32, ["N", 3, 32, 32]), "is_training": (TensorProto.BOOL, [])},
            r"needs is_training \(BOOL \[\]\) besides the image; export it for inference",
        ),
        (
            {"left": (FP32, ["N", 3, 32, 32]), "right": (FP32, ["N", 3, 32, 32])},
            r"the inputs left .*, right .*; export a graph that takes one image",
        ),
    ],
)
def test_a_graph_without_one_image_is_rejected(
    inputs: dict[str, tuple[int, Dims]], reason: str | None
) -> None:
    if reason is None:
        assert read_signature(graph(inputs)).layout == "NCHW"
        return
    with pytest.raises(BuildError, match=reason) as caught:
        read_signature(graph(inputs))
    assert "\n" not in str(caught.value)


def test_a_number_of_channels_that_contradicts_the_layout_is_rejected() -> None:
    with pytest.raises(BuildError, match="has 32 channels in layout NHWC"):
        read_signature(graph(), layout="NHWC")


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({"scores": (FP32, ["N", 8, 7, 7])}, r"scores \(FLOAT \[N, 8, 7, 7\]\) cannot be class"),
        ({"label": (TensorProto.INT64, ["N"])}, r"label \(INT64 \[N\]\) cannot be class scores"),
        ({"loss": (FP32, [])}, r"loss \(FLOAT \[\]\) cannot be class scores"),
        ({"scores": (FP32, [1000])}, r"\[1000\]\) has no batch dimension"),
        (
            {"first": (FP32, ["N", 5]), "second": (FP32, ["N", 3])},
            r"2 outputs \(first \(FLOAT \[N, 5\]\), second .*: --output-name NAME",
        ),
        (
            {"first": (FP32, ["N", 5, 7]), "second": (TensorProto.INT64, ["N"])},
            "--output-name NAME",
        ),
    ],
)
def test_a_graph_without_one_output_of_scores_is_rejected(
    outputs: dict[str, tuple[int, Dims]], reason: str
) -> None:
    with pytest.raises(BuildError, match=reason):
        read_signature(graph(outputs=outputs))


def test_an_output_that_does_not_exist_is_rejected_with_those_that_do() -> None:
    with pytest.raises(BuildError, match=r"no output logits; it has scores \(FLOAT \[N, 10\]\)"):
        read_signature(graph(), output="logits")


def test_a_graph_without_an_output_is_refused() -> None:
    model = classifier(FLEXIBLE)
    model.graph.ClearField("output")
    with pytest.raises(BuildError, match="the graph has no output; export it again"):
        read_signature(model)
