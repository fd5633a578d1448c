"""Users' own graphs of every kind: what is served is what the file computes.

Pixels go through all nodes that the repository adds and through the postprocessing step. The
expected probabilities come from the file's own graph and the definition of the recipe's fields.
"""

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from scripts.repository.ensemble import ClassifierSpec, onnx_part, pixels_part
from scripts.repository.graphs.engines import load
from scripts.repository.graphs.pixels import output, with_pixels
from scripts.repository.graphs.prepare import Prepared, prepare
from scripts.repository.steps.postprocess.ranking import softmax
from scripts.repository.steps.preprocess.recipe import Recipe, square
from scripts.repository.tuning import ENGINES, Tuning
from tests.graphs import Array

LINEAR = "scores = MatMul(features, weight)"
TO_PLANES = "planes = Transpose<perm = [0, 3, 1, 2]>(image)"
FROM_BYTES = "numbers = Cast<to = 1>(image) parts = Div(numbers, half)"


def body(last: str = LINEAR, first: str = "", image: str = "image") -> str:
    """Compute features [N, C] from the tensor `image`, between other nodes."""
    return f"{first} pooled = GlobalAveragePool({image}) features = Flatten(pooled) {last}"


@dataclass(frozen=True)
class Own:
    """A user's graph and recipe, what is told of it, and what its scores are."""

    body: str = field(default_factory=body)
    image: str = "float[N,3,32,32]"
    outputs: str = "float[N,5] scores"
    # Number of features and scores.
    weight: tuple[int, int] = (3, 5)
    weight_type: str = "float32"
    recipe: dict[str, Any] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    kind: str = "logits"

    @property
    def model(self) -> onnx.ModelProto:
        text = f"""
            <ir_version: 8, opset_import: ["" : 17]>
            own ({self.image} image) => ({self.outputs})
            <float half = {{127.5}}, int64[1] axis = {{1}}, int64[4] last = {{0, -1, 1, 1}}>
            {{ {self.body} }}
        """
        model: onnx.ModelProto = onnx.parser.parse_model(text)
        weight = 3 * np.random.default_rng(0).standard_normal(self.weight)
        array = weight.astype(self.weight_type)
        model.graph.initializer.append(numpy_helper.from_array(array, "weight"))
        return model


AS_THEY_ARE: dict[str, Any] = {"pixel_range": (0.0, 255.0), "mean": (0.0,), "std": (1.0,)}
CAFFE = AS_THEY_ARE | {"colour": "bgr", "mean": (123.68, 116.779, 103.939), "std": (58.0,)}
GREY: dict[str, Any] = {"colour": "grey", "mean": (0.4,), "std": (0.3,)}

OWN = {
    "channels last": Own(body(LINEAR, TO_PLANES, "planes"), "float[N,32,32,3]"),
    "channels last, BGR": Own(
        body(LINEAR, TO_PLANES, "planes"), "float[unk__1,unk__2,unk__3,3]", recipe=CAFFE
    ),
    "all dimensions symbolic": Own(
        body("logits = MatMul(features, weight)"),
        "float[batch_size,num_channels,height,width]",
        "float[batch_size,labels] logits",
    ),
    "FP16": Own(image="float16[N,3,32,32]", outputs="float16[N,5] scores", weight_type="float16"),
    "FP64": Own(
        f"features = ReduceMean<axes = [2, 3], keepdims = 0>(image) {LINEAR}",
        "double[N,3,32,32]",
        "double[N,5] scores",
        weight_type="float64",
    ),
    "UINT8": Own(body(LINEAR, FROM_BYTES, "parts"), "uint8[N,3,32,32]", recipe=AS_THEY_ARE),
    "UINT8, channels last": Own(
        body(LINEAR, f"{FROM_BYTES} {TO_PLANES.replace('image', 'parts')}", "planes"),
        "uint8[N,32,32,3]",
        recipe=AS_THEY_ARE,
    ),
    "grey": Own(image="float[N,1,32,32]", weight=(1, 5), recipe=GREY),
    "grey, channels last": Own(
        body(LINEAR, TO_PLANES, "planes"), "float[N,32,32,1]", weight=(1, 5), recipe=GREY
    ),
    "0 to 255, normalised by the graph": Own(
        body(LINEAR, "centred = Sub(image, half) parts = Div(centred, half)", "parts"),
        recipe=AS_THEY_ARE,
    ),
    "[N, 5, 1, 1]": Own(
        body("row = MatMul(features, weight) scores = Reshape(row, last)"),
        outputs="float[N,5,1,1] scores",
    ),
    "no shape": Own(outputs="float[] scores"),
    "two outputs": Own(outputs="float[N,3] features, float[N,5] scores"),
    "an output that is named": Own(
        body(f"{LINEAR} second = Neg(scores)"),
        outputs="float[N,5] second, float[N,5] scores",
        told={"output": "second"},
    ),
    "softmax": Own(body("x = MatMul(features, weight) scores = Softmax(x)"), kind="probabilities"),
    "log-softmax": Own(body("x = MatMul(features, weight) scores = LogSoftmax(x)")),
    "sigmoid": Own(body("x = MatMul(features, weight) scores = Sigmoid(x)"), kind="probabilities"),
    "logits of independent labels": Own(told={"scores": "sigmoid"}, kind="sigmoid"),
    "one sigmoid": Own(
        body("x = MatMul(features, weight) scores = Sigmoid(x)"),
        outputs="float[N,1] scores",
        weight=(3, 1),
        kind="probability",
    ),
    "one sigmoid [N]": Own(
        body("x = MatMul(features, weight) p = Sigmoid(x) scores = Squeeze(p, axis)"),
        outputs="float[N] scores",
        weight=(3, 1),
        kind="probability",
    ),
    "one logit": Own(
        outputs="float[N,1] scores",
        weight=(3, 1),
        told={"scores": "sigmoid"},
        kind="logit",
    ),
    "two classes": Own(outputs="float[N,2] scores", weight=(3, 2)),
    "21,843 classes": Own(outputs="float[N,21843] scores", weight=(3, 21_843)),
}


def run(model: onnx.ModelProto, name: str, values: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (image,) = session.get_inputs()
    return np.asarray(session.run([name], {image.name: values})[0])


def expected(own: Own, recipe: Recipe, images: npt.NDArray[np.uint8]) -> Array:
    """Compute the probabilities with the file's graph, image by image."""
    low, high = recipe.pixel_range
    scaled = (low + images / 255 * (high - low) - recipe.mean) / recipe.std
    arranged = scaled[..., ::-1] if recipe.colour == "bgr" else scaled
    if own.image.split(",")[-1] not in {"3]", "1]"}:
        arranged = arranged.transpose(0, 3, 1, 2)
    types = {"float": "f4", "float16": "f2", "double": "f8", "uint8": "u1"}
    tensors = arranged.round(6).astype(types[own.image.split("[")[0]])
    name = own.told.get("output", own.model.graph.output[-1].name)
    raw = np.concatenate([run(own.model, name, each[None]) for each in tensors])
    scores = raw.reshape(len(images), -1).astype(np.float64)
    if own.kind == "logits":
        exponents = np.exp(scores)
        return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))
    if own.kind in {"sigmoid", "logit"}:
        scores = 1 / (1 + np.exp(-scores))
    return np.hstack([1 - scores, scores]) if own.kind in {"logit", "probability"} else scores


def served(prepared: Prepared, recipe: Recipe, images: npt.NDArray[np.uint8], engine: str) -> Array:
    """Compute the probabilities as the server does, all images in one batch."""
    model = with_pixels(prepared, recipe)
    onnx.checker.check_model(model, full_check=True)
    scores = load(engine, model.SerializeToString(), output=output(prepared), batches=True)(images)
    assert scores.dtype == np.float32
    return np.stack([softmax(row) for row in scores]) if prepared.scores.are_logits else scores


@functools.cache
def built(name: str) -> tuple[Prepared, Recipe]:
    own = OWN[name]
    recipe = square(36, 32, **own.recipe)
    return prepare(own.model, size=recipe.crop, **own.told), recipe


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", OWN)
def test_what_is_served_is_what_the_file_computes(name: str, engine: str) -> None:
    own = OWN[name]
    prepared, recipe = built(name)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (3, *recipe.crop, recipe.channels), dtype=np.uint8)
    images[1:] //= np.arange(2, 4, dtype=np.uint8).reshape(2, 1, 1, 1)
    probabilities = served(prepared, recipe, images, engine)
    assert probabilities.shape == (3, prepared.classes)
    np.testing.assert_allclose(
        probabilities,
        expected(own, recipe, images),
        atol=2e-3 if own.weight_type == "float16" else 1e-5,
    )


def declared(model: onnx.ModelProto) -> dict[str, list[int]]:
    """List the outputs as onnxruntime reports them, without the batch; -1 is variable."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return {
        output.name: [dim if isinstance(dim, int) else -1 for dim in output.shape[1:]]
        for output in session.get_outputs()
    }


@pytest.mark.parametrize("name", OWN)
def test_configured_outputs_are_those_that_onnxruntime_reports(name: str) -> None:
    # Triton's C++ backend refuses to load a model for any difference.
    prepared, recipe = built(name)
    labels = tuple(map(str, range(prepared.classes)))
    spec = ClassifierSpec("own", prepared, recipe, labels, Tuning(cores=1))
    for part, model in (
        (onnx_part(spec), prepared.model),
        (pixels_part(spec), with_pixels(prepared, recipe)),
    ):
        configured = {
            output.name: [] if output.is_scalar else list(output.dims) for output in part.outputs
        }
        assert configured == declared(model)
