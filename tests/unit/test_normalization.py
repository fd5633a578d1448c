"""Graphs that normalise by themselves."""

from typing import Any

import numpy as np
import onnx
import pytest

from scripts.repository.graphs.normalization import warning
from scripts.repository.graphs.signature import read_signature
from scripts.repository.steps.preprocess.recipe import Recipe
from tests.graphs import classifier

NONE: dict[str, Any] = {"pixel_range": (0.0, 255.0), "mean": (0.0,), "std": (1.0,)}
CONSTANTS = {
    "half": np.array(127.5),
    "minus_one": np.array(-1.0),
    "byte": np.array(255.0),
    "from_byte": np.array(1 / 255),
    "from_half": np.array(1 / 127.5),
    "caffe": np.array([103.939, 116.779, 123.68]).reshape(3, 1, 1),
    "minus_caffe": -np.array([103.939, 116.779, 123.68]).reshape(3, 1, 1),
    "mean_image": np.full((3, 32, 32), 117.0),
    "mean": np.array([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1),
    "std": np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1),
    "two": np.array(2.0),
    "one": np.array(1.0),
    "small": np.array([0.1, 0.2, 0.3]).reshape(3, 1, 1),
    "large": np.array([120.0, 110.0, 100.0]),
    "ones": np.ones(3),
}


def graph(body: str, image: str = "float[N,3,32,32]") -> onnx.ModelProto:
    """A classifier of the tensor `normal` that the body computes from `image`."""
    body += """
        pooled = GlobalAveragePool(normal)
        features = Flatten(pooled)
        scores = MatMul(features, weight)
    """
    arrays = {name: array.astype(np.float32) for name, array in CONSTANTS.items()}
    return classifier(body, image=image, initializers=arrays)


def warned(model: onnx.ModelProto, **fields: Any) -> str | None:
    return warning(model, read_signature(model), Recipe(**fields))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        # Keras: Rescaling and preprocess_input
        (
            "x = Mul(image, from_half) normal = Add(x, minus_one)",
            "subtract 127.5 and divide by 127.5",
        ),
        ("normal = Mul(image, from_byte)", "divide by 255"),
        ("x = Div(image, half) normal = Sub(x, one)", "subtract 127.5 and divide by 127.5"),
        ("normal = Add(image, minus_caffe)", "subtract 103.939, 116.779, 123.68"),
        # Custom Vision, Caffe
        ("normal = Sub(image, caffe)", "subtract 103.939, 116.779, 123.68"),
        ("normal = Sub(image, mean_image)", "subtract 117"),
        ("normal = Div(image, byte)", "divide by 255"),
        ("x = Sub(image, half) normal = Div(x, half)", "subtract 127.5 and divide by 127.5"),
        (
            "x = Div(image, byte) y = Sub(x, mean) normal = Div(y, std)",
            "subtract 123.675, 116.28, 103.53 and divide by 58.395, 57.12, 57.375",
        ),
        ("c = Constant<value_float = 255.0>() normal = Div(image, c)", "divide by 255"),
        ("x = Cast<to = 1>(image) y = Identity(x) normal = Div(y, byte)", "divide by 255"),
    ],
)
def test_a_graph_of_grey_levels_is_recognised(body: str, said: str) -> None:
    line = warned(graph(body))
    assert line == (
        f"the graph's first nodes {said}, as for pixel values 0 to 255, but the recipe normalises "
        "the pixels, too; use --normalization none"
    )
    assert warned(graph(body), **NONE) is None


def test_a_graph_with_channels_last_is_recognised() -> None:
    body = "x = Div(image, byte) normal = Transpose<perm = [0, 3, 1, 2]>(x)"
    line = warned(graph(body, "float[N,32,32,3]"))
    assert line is not None
    assert "divide by 255" in line


@pytest.mark.parametrize("first", ["", "x = Mul(image, byte) image_2 = Div(x, byte)"])
def test_a_graph_of_values_from_0_to_1_is_recognised(first: str) -> None:
    source = "image_2" if first else "image"
    model = graph(f"{first} y = Sub({source}, mean) normal = Div(y, std)")
    line = warned(model)
    assert line is not None
    assert "subtract 0.485, 0.456, 0.406 and divide by 0.229, 0.224, 0.225" in line
    assert line.endswith("use --pixel-range 0 1 --mean 0 --std 1")
    assert warned(model, mean=(0.0,), std=(1.0,)) is None
    assert warned(model, **NONE) == line


@pytest.mark.parametrize(
    "body",
    [
        "normal = Identity(image)",
        # The zoo's ResNet v2, and one whose statistics look like those of grey levels
        "normal = BatchNormalization(image, ones, ones, ones, ones)",
        "normal = BatchNormalization(image, ones, ones, large, ones)",
        "x = Mul(image, two) normal = Add(x, small)",
        # A sum with something that depends on the image
        "x = Mul(image, two) normal = Add(x, image)",
        "normal = Div(byte, image)",
    ],
)
def test_other_graphs_are_not_warned_about(body: str) -> None:
    assert warned(graph(body)) is None
