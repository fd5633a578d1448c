"""Small classifiers for the tests, in ONNX's text form."""

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
    """Parse a graph from `image` to `scores`; `features` is the image's channels, averaged.

    `weight` [3, CLASSES] is there to multiply them by.
    """
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
SOFTMAXED = FLEXIBLE.replace("scores =", "logits =") + "scores = Softmax(logits)"
