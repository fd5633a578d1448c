"""Exports of Keras and TensorFlow: channels last."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import layers
from PIL import Image

from tests.exports.reference import Reference
from tests.exports.rows import PHOTOGRAPHS

SIZE = 96
CLASSES = 10
NAMES = tuple(f"bird {number}" for number in range(CLASSES))


def _network(*before: Any) -> Any:
    keras.utils.set_random_seed(0)
    image = tensor = keras.Input((SIZE, SIZE, 3), name="image")
    for layer in (
        *before,
        layers.Conv2D(8, 5, strides=4, padding="same", activation="relu"),
        layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
        layers.AveragePooling2D(3),
        layers.Flatten(),
        layers.Dense(CLASSES, activation="softmax"),
    ):
        tensor = layer(tensor)
    return keras.Model(image, tensor)


def _calibrate(network: Any, preprocess: Callable[[Any], Any]) -> Any:
    """Scale the last layer so that its scores differ between photographs."""
    images = np.stack([preprocess(_load(file)) for file in PHOTOGRAPHS])
    features = keras.Model(network.inputs, network.layers[-2].output)(images).numpy()
    weight, _ = network.layers[-1].get_weights()
    scores = features @ weight
    factor = 2 / (scores - scores.mean(0)).std()
    network.layers[-1].set_weights([weight * factor, -scores.mean(0) * factor])
    network(images)  # the export takes the shapes of a call
    return network


def _load(file: Path | Image.Image, size: int = SIZE) -> Any:
    """Do what Keras' `load_img(target_size=...)` does: nearest pixel, each side by itself."""
    image = file if isinstance(file, Image.Image) else Image.open(file).convert("RGB")
    return np.asarray(image.resize((size, size), Image.Resampling.NEAREST), np.float32)


def _scaled(values: Any) -> Any:
    return keras.applications.mobilenet_v2.preprocess_input(values.copy())


def _caffe(values: Any) -> Any:
    return keras.applications.resnet50.preprocess_input(values.copy())


def _export(network: Any, file: Path) -> None:
    network.export(str(file), format="onnx", verbose=False)


def _keras_export(folder: Path) -> Reference:
    _export(_calibrate(_network(), _scaled), folder / "model.onnx")
    return Reference(lambda image: _scaled(_load(image)), scores="given", labels=NAMES)


def _keras_caffe(folder: Path) -> Reference:
    _export(_calibrate(_network(), _caffe), folder / "model.onnx")
    return Reference(lambda image: _caffe(_load(image)), scores="given")


def _tf2onnx(folder: Path) -> Reference:
    network = _calibrate(_network(layers.Rescaling(1 / 127.5, offset=-1)), lambda values: values)
    signature = [tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32, name="image")]
    function = tf.function(network, input_signature=signature)
    tf2onnx.convert.from_function(
        function, input_signature=signature, opset=17, output_path=str(folder / "model.onnx")
    )
    return Reference(_load, scores="given")


MAKERS: dict[str, Callable[[Path], Reference]] = {
    "keras_export": _keras_export,
    "keras_caffe": _keras_caffe,
    "tf2onnx": _tf2onnx,
}
