"""Graphs with uint8 input, which include the zoo's normalisation."""

import numpy as np
import onnx
import onnxruntime
import pytest

from scripts.repository.errors import BuildError
from scripts.repository.graphs.pixels import with_pixels
from scripts.repository.graphs.prepare import prepare
from scripts.repository.steps.preprocess.recipe import square
from tests import reference
from tests.graphs import FLEXIBLE, classifier

RECIPE = square(37, 32)


def run(model: onnx.ModelProto, values: np.ndarray) -> reference.Array:  # type: ignore[type-arg]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (image,) = session.get_inputs()
    scores: reference.Array = session.run(None, {image.name: values})[0]
    return scores


def test_pixels_and_normalised_tensors_have_the_same_scores() -> None:
    prepared = prepare(classifier(FLEXIBLE), size=(32, 32))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    tensors = np.stack([reference.normalized(each.astype(np.int64)) for each in pixels])
    expected = run(prepared.model, tensors)
    np.testing.assert_allclose(run(with_pixels(prepared, RECIPE), pixels), expected, atol=1e-5)


def test_the_input_is_uint8_with_a_variable_batch() -> None:
    model = with_pixels(prepare(classifier(FLEXIBLE), size=(32, 32)), RECIPE)
    onnx.checker.check_model(model, full_check=True)
    (image,) = model.graph.input
    tensor = image.type.tensor_type
    assert (image.name, tensor.elem_type) == ("PIXELS", onnx.TensorProto.UINT8)
    assert [dim.dim_param or dim.dim_value for dim in tensor.shape.dim] == ["N", 32, 32, 3]


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
