"""Small classifiers for the tests, in ONNX's text format."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Array = npt.NDArray[Any]

CLASSES = 10


def classifier(
    body: str,
    *,
    image: str = "float[1,3,32,32]",
    scores: str = f"float[1,{CLASSES}]",
    opset: int = 13,
    ir_version: int = 8,
    initializers: dict[str, Array] | None = None,
) -> onnx.ModelProto:
    """Parse a graph from `image` to `scores`, with the initializer `weight` [3, CLASSES]."""
    text = f"""
        <ir_version: {ir_version}, opset_import: ["" : {opset}]>
        classifier ({image} image) => ({scores} scores) {{ {body} }}
    """
    model: onnx.ModelProto = onnx.parser.parse_model(text)
    weight = np.random.default_rng(0).standard_normal((3, CLASSES)).astype(np.float32)
    for name, array in ({"weight": weight} | (initializers or {})).items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def shape(*dims: int) -> dict[str, Array]:
    return {"shape": np.array(dims, np.int64)}


FLEXIBLE = """
    pooled = GlobalAveragePool(image)
    features = Flatten(pooled)
    scores = MatMul(features, weight)
"""
RESHAPED = FLEXIBLE.replace("Flatten(pooled)", "Reshape(pooled, shape)")
HALF = """
    small = Cast<to = 10>(image)
    pooled = GlobalAveragePool(small)
    features = Flatten(pooled)
    each = MatMul(features, half)
    scores = Cast<to = 1>(each)
"""
SOFTMAXED = FLEXIBLE.replace("scores =", "logits =") + "scores = Softmax(logits)"

FILTERS = 8
CONVOLVED = """
    filtered = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(image, filters)
    normal = BatchNormalization(filtered, ones, zeros, zeros, ones)
    active = Relu(normal)
    pooled = GlobalAveragePool(active)
    features = Flatten(pooled)
    scores = MatMul(features, weight)
"""


def convolved(body: str = CONVOLVED, **settings: Any) -> onnx.ModelProto:
    """A classifier with a convolution, which can be quantised, before its last layer."""
    rng = np.random.default_rng(3)
    arrays = {
        "filters": rng.standard_normal((FILTERS, 3, 3, 3)),
        "weight": rng.standard_normal((FILTERS, CLASSES)),
        "zeros": np.zeros(FILTERS),
        "ones": np.ones(FILTERS),
    }
    initializers = {name: array.astype(np.float32) for name, array in arrays.items()}
    return classifier(body, initializers=initializers, **settings)


def half(**settings: Any) -> onnx.ModelProto:
    """A classifier that computes its last layer in FP16."""
    weight = np.random.default_rng(0).standard_normal((3, CLASSES)).astype(np.float16)
    return classifier(HALF, initializers={"half": weight}, **settings)


def imagenet() -> onnx.ModelProto:
    """A classifier with ImageNet's 1,000 classes and its recipe, which shares both steps."""
    weight = np.random.default_rng(0).standard_normal((3, 1000)).astype(np.float32)
    return classifier(
        FLEXIBLE.replace("weight", "weights"),
        image="float[1,3,224,224]",
        scores="float[1,1000]",
        initializers={"weights": weight},
    )
