"""The configurations of a classifier's models, for graphs of every kind."""

from dataclasses import replace
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2 as pb

from scripts.repository.ensemble import (
    ClassifierSpec,
    ensemble,
    onnx_part,
    pixels_part,
    postprocess_part,
    preprocess_part,
)
from scripts.repository.errors import BuildError
from scripts.repository.graphs.prepare import Prepared
from scripts.repository.graphs.scores import KINDS, Scores
from scripts.repository.graphs.signature import Signature
from scripts.repository.steps.preprocess.recipe import Recipe
from scripts.repository.tuning import Tuning

SIGNATURE = Signature("image", "scores", None, 48, 32, output_dims=(5,))
SCORES = Scores("logits", "its values", 5)
RECIPE = Recipe((60, 40), (48, 32))


def spec(
    outputs: dict[str, tuple[int, list[Any] | None]] | None = None,
    *,
    signature: Signature = SIGNATURE,
    scores: Scores = SCORES,
    recipe: Recipe = RECIPE,
    tuning: Tuning | None = None,
    precision: str = "fp32",
) -> ClassifierSpec:
    """Describe a classifier of which only the declared outputs exist."""
    outputs = outputs or {"scores": (TensorProto.FLOAT, ["N", 5])}
    values = [helper.make_tensor_value_info(name, *value) for name, value in outputs.items()]
    model = onnx.ModelProto(graph=onnx.GraphProto(output=values))
    labels = tuple(f"label {number}" for number in range(scores.classes))
    prepared = Prepared(model, signature, scores)
    return ClassifierSpec("own", prepared, recipe, labels, tuning or Tuning(), precision)


def dims(tensors: Any) -> dict[str, list[int]]:
    return {tensor.name: list(tensor.dims) for tensor in tensors}


@pytest.mark.parametrize(
    ("signature", "expected", "warm_up"),
    [
        (SIGNATURE, ("FORMAT_NCHW", "TYPE_FP32", [3, 48, 32]), [3, 48, 32]),
        (
            replace(SIGNATURE, layout="NHWC", input_type="FP16", height=None, width=None),
            ("FORMAT_NHWC", "TYPE_FP16", [-1, -1, 3]),
            [48, 32, 3],
        ),
        (
            replace(SIGNATURE, channels=1, input_type="UINT8", width=None),
            ("FORMAT_NCHW", "TYPE_UINT8", [1, 48, -1]),
            [1, 48, 32],
        ),
    ],
)
def test_the_input_is_the_files_own(
    signature: Signature, expected: tuple[str, str, list[int]], warm_up: list[int]
) -> None:
    grey = Recipe((60, 40), (48, 32), colour="grey", mean=(0.0,), std=(1.0,))
    recipe = grey if signature.channels == 1 else RECIPE
    config = onnx_part(spec(signature=signature, recipe=recipe)).to_protobuf()
    (image,) = config.input
    assert (
        pb.ModelInput.Format.Name(image.format),
        pb.DataType.Name(image.data_type),
        list(image.dims),
    ) == expected
    sample = config.model_warmup[0].inputs["image"]
    assert list(sample.dims) == warm_up
    assert sample.data_type == image.data_type


def test_every_output_of_the_file_is_served_with_its_own_type_and_dimensions() -> None:
    outputs: dict[str, tuple[int, list[Any] | None]] = {
        "scores": (TensorProto.FLOAT16, ["N", 5, 1, 1]),
        "features": (TensorProto.DOUBLE, ["N", 8, "h", 7]),
        "best": (TensorProto.INT64, ["N"]),
        "name": (TensorProto.STRING, ["N", 1]),
        # These have no row for each image.
        "loss": (TensorProto.FLOAT, []),
        "weights": (TensorProto.FLOAT, [3, 5]),
        "unknown": (TensorProto.FLOAT, None),
    }
    config = onnx_part(spec(outputs)).to_protobuf()
    assert dims(config.output) == {
        "scores": [5, 1, 1],
        "features": [8, -1, 7],
        "best": [1],
        "name": [1],
    }
    types = [pb.DataType.Name(output.data_type) for output in config.output]
    assert types == ["TYPE_FP16", "TYPE_FP64", "TYPE_INT64", "TYPE_STRING"]
    assert [output.HasField("reshape") for output in config.output] == [False, False, True, False]
    assert list(config.output[2].reshape.shape) == []
    assert [output.label_filename for output in config.output] == ["labels.txt", "", "", ""]


def test_the_ensemble_takes_the_scores_of_the_pixels_model() -> None:
    outputs: dict[str, tuple[int, list[Any] | None]] = {
        "features": (TensorProto.FLOAT, ["N", 8]),
        "scores": (TensorProto.FLOAT16, ["N", 5]),
    }
    half = spec(outputs, signature=replace(SIGNATURE, output_type="FP16"))
    for classifier, name in ((spec(), "scores"), (half, "SCORES")):
        config = pixels_part(classifier).to_protobuf()
        assert dims(config.output) == {name: [5]}
        assert pb.DataType.Name(config.output[0].data_type) == "TYPE_FP32"
        (step,) = (
            step
            for step in ensemble(classifier).to_protobuf().ensemble_scheduling.step
            if step.model_name == "own_pixels"
        )
        assert step.output_map == {name: "scores"}


def test_pixels_have_the_size_and_the_channels_of_the_recipe() -> None:
    grey = Recipe((60, 40), (48, 32), colour="grey", mean=(0.0,), std=(1.0,))
    config = pixels_part(spec(signature=replace(SIGNATURE, channels=1), recipe=grey)).to_protobuf()
    assert dims(config.input) == {"PIXELS": [48, 32, 1]}
    assert list(config.model_warmup[0].inputs["PIXELS"].dims) == [48, 32, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_postprocessing_step_applies_a_softmax_only_where_it_is_needed(kind: str) -> None:
    config = postprocess_part(spec(scores=replace(SCORES, kind=kind))).to_protobuf()
    expected = "logits" if kind in {"logits", "log-probabilities"} else "probabilities"
    assert config.parameters["scores"].string_value == expected


def test_one_score_an_image_has_labels_only_where_it_is_two_classes() -> None:
    single = spec(
        {"scores": (TensorProto.FLOAT, ["N", 1])},
        signature=replace(SIGNATURE, output_dims=(1,)),
        scores=Scores("sigmoid", "its last node Sigmoid", 2, is_single=True),
    )
    (original,) = onnx_part(single).to_protobuf().output
    (served,) = pixels_part(single).to_protobuf().output
    assert (list(original.dims), original.label_filename) == ([1], "")
    assert (list(served.dims), served.label_filename) == ([2], "labels.txt")
    assert postprocess_part(single).to_protobuf().parameters["max_top_k"].string_value == "2"


OPENVINO = Tuning(engine="openvino")


@pytest.mark.parametrize("tuning", [Tuning(), replace(OPENVINO, queue=7)])
def test_ten_crops_of_one_image_are_a_batch_for_the_same_graph(tuning: Tuning) -> None:
    one = spec(tuning=tuning)
    ten = replace(one, crops=10)
    chain, preprocess, postprocess = (
        part(ten).to_protobuf() for part in (ensemble, preprocess_part, postprocess_part)
    )
    assert [config.name for config in (chain, preprocess, postprocess)] == [
        *("own_10crop", "own_preprocess_10crop", "own_postprocess_10crop")
    ]
    assert [config.max_batch_size for config in (chain, preprocess, postprocess)] == [0, 0, 0]
    assert dims(chain.input) == {"IMAGE": [1, 1]}
    assert dims(chain.output) == {name: [1, -1] for name in ("CLASS_ID", "PROBABILITY", "LABEL")}
    assert dims(preprocess.input) == {"IMAGE": [1, 1], "ENSEMBLE_IMAGE": [1, 1]}
    assert dims(preprocess.output) == {"PIXELS": [10, 48, 32, 3], "CREDIT": [10, 2]}
    assert dims(postprocess.input) == {"SCORES": [10, 5], "CREDIT": [10, 2]}
    assert dims(postprocess.output) == dims(chain.output)
    for config in (preprocess, postprocess):
        assert parameters(config)["crops"] == "10"
    alone = preprocess_part(one).to_protobuf()
    assert parameters(preprocess) | {"crops": "1"} == parameters(alone)
    names = [step.model_name for step in chain.ensemble_scheduling.step]
    assert names == ["own_preprocess_10crop", "own_pixels", "own_postprocess_10crop"]
    assert pixels_part(ten) == pixels_part(one)


@pytest.mark.parametrize(("tuning", "longest"), [(Tuning(), 6), (Tuning(queue=7), 1)])
def test_as_many_crops_wait_as_images_without_crops(tuning: Tuning, longest: int) -> None:
    one, ten = (
        preprocess_part(replace(spec(tuning=tuning), crops=crops)).to_protobuf().dynamic_batching
        for crops in (1, 10)
    )
    assert one.default_queue_policy.max_queue_size == tuning.max_queue_size
    assert ten.default_queue_policy.max_queue_size == longest
    for field in ("timeout_action", "default_timeout_microseconds", "allow_timeout_override"):
        policies = (one.default_queue_policy, ten.default_queue_policy)
        assert len({getattr(policy, field) for policy in policies}) == 1


def parameters(config: pb.ModelConfig) -> dict[str, str]:
    return {name: value.string_value for name, value in config.parameters.items()}


def test_on_openvino_the_batch_is_the_first_dimension_of_every_tensor() -> None:
    outputs: dict[str, tuple[int, list[Any] | None]] = {
        "scores": (TensorProto.FLOAT16, ["N", 5, 1, 1]),
        "features": (TensorProto.FLOAT, ["N", 8, "h", 7]),
        "best": (TensorProto.INT64, ["N"]),
    }
    signature = replace(SIGNATURE, output_type="FP16", width=None)
    classifier = spec(outputs, signature=signature, tuning=OPENVINO)
    original, pixels = (part(classifier).to_protobuf() for part in (onnx_part, pixels_part))
    assert dims(original.input) == {"image": [-1, 3, 48, -1]}
    assert dims(original.output) == {
        "scores": [-1, 5, 1, 1],
        "features": [-1, 8, -1, 7],
        "best": [-1, 1],
    }
    assert [list(output.reshape.shape) for output in original.output] == [[], [], [-1]]
    assert dims(pixels.input) == {"PIXELS": [-1, 48, 32, 3]}
    assert dims(pixels.output) == {"SCORES": [-1, 5]}
    for config in (original, pixels):
        assert (config.backend, config.default_model_filename) == ("openvino", "model.onnx")
        assert config.max_batch_size == 0
        assert config.input[0].format == pb.ModelInput.FORMAT_NONE
        assert [group.kind for group in config.instance_group] == [pb.ModelInstanceGroup.KIND_CPU]
        (warm_up,) = config.model_warmup
        assert warm_up.batch_size == 0
    assert list(original.model_warmup[0].inputs["image"].dims) == [1, 3, 48, 32]
    assert list(pixels.model_warmup[0].inputs["PIXELS"].dims) == [1, 48, 32, 3]


def test_on_openvino_only_the_queue_of_the_original_tensors_is_bounded() -> None:
    classifier = spec(tuning=replace(OPENVINO, queue=7))
    batching = onnx_part(classifier).to_protobuf().dynamic_batching
    assert batching.default_queue_policy.max_queue_size == 7
    assert not batching.preferred_batch_size
    assert not pixels_part(classifier).to_protobuf().HasField("dynamic_batching")


@pytest.mark.parametrize(
    ("goal", "cores", "instances", "onnxruntime", "openvino"),
    [
        ("throughput", 2, 2, ("1",), ("2", "2")),
        ("throughput", 20, 8, ("2",), ("16", "8")),
        ("latency", 8, 1, ("8",), ("8", "1")),
    ],
)
def test_each_engine_gets_the_threads_of_the_goal(
    goal: str, cores: int, instances: int, onnxruntime: tuple[str, ...], openvino: tuple[str, ...]
) -> None:
    tuning = Tuning(goal=goal, cores=cores)
    for part in (onnx_part, pixels_part):
        config = part(spec(tuning=tuning)).to_protobuf()
        assert parameters(config) == dict(zip(["intra_op_thread_count"], onnxruntime, strict=True))
        assert config.instance_group[0].count == instances
        config = part(spec(tuning=replace(tuning, engine="openvino"))).to_protobuf()
        names = ["INFERENCE_NUM_THREADS", "NUM_STREAMS"]
        assert parameters(config) == dict(zip(names, openvino, strict=True))
        assert config.instance_group[0].count == instances


def test_only_bfloat16_is_a_setting_of_openvino() -> None:
    for precision, hint in (("fp32", None), ("bf16", "YES"), ("int8", None)):
        config = pixels_part(spec(tuning=OPENVINO, precision=precision)).to_protobuf()
        assert parameters(config).get("HINT_BF16") == hint


@pytest.mark.parametrize(
    ("outputs", "signature"),
    [
        ({"scores": (TensorProto.FLOAT, ["N", 5]), "x": (TensorProto.STRING, ["N"])}, SIGNATURE),
        (None, replace(SIGNATURE, input_type="FP64")),
    ],
)
def test_a_type_that_the_openvino_backend_lacks_is_refused(
    outputs: Any, signature: Signature
) -> None:
    with pytest.raises(BuildError, match=r"which is (FP64|STRING)$"):
        onnx_part(spec(outputs, signature=signature, tuning=OPENVINO))
    assert onnx_part(spec(outputs, signature=signature)).to_protobuf().max_batch_size == 32
