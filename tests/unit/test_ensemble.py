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
)
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
) -> ClassifierSpec:
    """Describe a classifier of which only the declared outputs exist."""
    outputs = outputs or {"scores": (TensorProto.FLOAT, ["N", 5])}
    values = [helper.make_tensor_value_info(name, *value) for name, value in outputs.items()]
    model = onnx.ModelProto(graph=onnx.GraphProto(output=values))
    labels = tuple(f"label {number}" for number in range(scores.classes))
    return ClassifierSpec("own", Prepared(model, signature, scores), recipe, labels, Tuning())


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
