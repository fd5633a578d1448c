"""Exports that are edited or written by hand, and files of labels."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from tests.exports.exporters import legacy
from tests.exports.networks import CLASSES, crops
from tests.exports.reference import Reference, channels_first, zoo
from tests.exports.rows import FILES

NAMES = tuple(f"bird {number}" for number in range(CLASSES))
LABELLED = ("labels_list", "labels_by_id", "labels_to_id", "labels_config", "labels_csv")


def _minus_one(folder: Path) -> Reference:
    reference = legacy()(folder)
    model = onnx.load(folder / "model.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = -1
    onnx.save(model, folder / "model.onnx")
    return reference


def _no_shape(folder: Path) -> Reference:
    reference = legacy()(folder)
    model = onnx.load(folder / "model.onnx")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, folder / "model.onnx")
    return reference


class _Crops(CalibrationDataReader):
    def __init__(self) -> None:
        self._images = iter(crops(224).numpy())

    def get_next(self) -> dict[str, Any] | None:
        image = next(self._images, None)
        return None if image is None else {"input": image[None]}


def _quantized(quant_format: QuantFormat) -> Callable[[Path], Reference]:
    def make(folder: Path) -> Reference:
        file, original = folder / "model.onnx", folder / "fp32.onnx"
        reference = legacy()(folder)
        file.rename(original)
        types = ["Conv"] if quant_format is QuantFormat.QOperator else None  # else scores are equal
        quantize_static(
            original, file, _Crops(), quant_format=quant_format, op_types_to_quantize=types
        )
        original.unlink()
        return reference

    return make


# torch writes these operators only for whole transformers, so the graph is written by hand.
ATTENTION = """
    <ir_version: 11, opset_import: ["" : 23]>
    g (float[N,3,224,224] image) => (float[N,10] scores) {
        cells = Conv<kernel_shape = [16, 16], strides = [32, 32]>(image, patches)
        flat = Reshape(cells, to_flat)
        tokens = Transpose<perm = [0, 2, 1]>(flat)
        normal = RMSNormalization<axis = -1, epsilon = 0.00001>(tokens, ones)
        query = MatMul(normal, wq)
        key = MatMul(normal, wk)
        mixed = Attention<q_num_heads = 2, kv_num_heads = 2>(query, key, normal)
        sum = Add(tokens, mixed)
        pooled = ReduceMean<keepdims = 0>(sum, axes)
        scores = Gemm(pooled, weight, bias)
    }
"""
SWISH = """
    <ir_version: 11, opset_import: ["" : 24]>
    g (float[N,3,224,224] image) => (float[N,10] scores) {
        cells = Conv<kernel_shape = [16, 16], strides = [32, 32]>(image, patches)
        active = Swish<alpha = 1.5>(cells)
        pooled = GlobalAveragePool(active)
        flat = Flatten(pooled)
        scores = Gemm(flat, weight, bias)
    }
"""


def _by_hand(text: str) -> Callable[[Path], Reference]:
    def make(folder: Path) -> Reference:
        rng = np.random.default_rng(0)
        width = 8
        arrays = {
            "patches": rng.standard_normal((width, 3, 16, 16)) / 16,
            "ones": np.ones(width),
            "wq": rng.standard_normal((width, width)),
            "wk": rng.standard_normal((width, width)),
            "weight": 2 * rng.standard_normal((width, CLASSES)),
            "bias": np.zeros(CLASSES),
        }
        model = parser.parse_model(text)
        for name, array in arrays.items():
            if name in text:
                tensor = numpy_helper.from_array(array.astype(np.float32), name)
                model.graph.initializer.append(tensor)
        for name, values in {"to_flat": [0, width, -1], "axes": [1]}.items():
            if name in text:
                model.graph.initializer.append(
                    numpy_helper.from_array(np.array(values, np.int64), name)
                )
        onnx.save(model, folder / "model.onnx")
        return Reference(zoo)

    return make


def _classes_21843(folder: Path) -> Reference:
    """Write a last layer of INT8 weights, which keeps the file small."""
    rng = np.random.default_rng(2)
    classes = 21_843
    weight = rng.integers(-127, 128, (3, classes)).astype(np.int8)
    body = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,224,224] image) => (float[N,21843] scores) {
            pooled = GlobalAveragePool(image)
            features = Flatten(pooled)
            weights = DequantizeLinear(weight, scale)
            scores = MatMul(features, weights)
        }
    """
    model = parser.parse_model(body)
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "scale"))
    onnx.save(model, folder / "model.onnx")
    return Reference(zoo)


def _names_in_file(folder: Path) -> Reference:
    """Write `names` as the exporter of Ultralytics does: a Python dictionary."""
    reference = legacy(labels=NAMES)(folder)
    model = onnx.load(folder / "model.onnx")
    helper.set_model_props(model, {"names": str(dict(enumerate(NAMES)))})
    onnx.save(model, folder / "model.onnx")
    return reference


def _unicode(folder: Path) -> Reference:
    reference = legacy()(folder)
    file = folder / "мои файлы" / "класс 1 é.onnx"
    file.parent.mkdir()
    (folder / "model.onnx").rename(file)
    return reference


def _save_external(folder: Path) -> Reference:
    reference = legacy()(folder)
    model = onnx.load(folder / "model.onnx")
    onnx.save(
        model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data",
        size_threshold=100,
    )  # fmt: skip
    return reference


def _external(folder: Path) -> Reference:
    """Lay the files out as the Hugging Face cache does."""
    reference = _save_external(folder)
    snapshot, blobs = folder / "snapshot", folder / "blobs"
    snapshot.mkdir()
    blobs.mkdir()
    for name, blob in (("model.onnx", "aaa"), ("model.onnx.data", "bbb")):
        (folder / name).rename(blobs / blob)
        (snapshot / name).symlink_to(f"../blobs/{blob}")
    return reference


def _external_short(folder: Path) -> Reference:
    reference = _save_external(folder)
    data = folder / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:500])
    return reference


def _external_renamed(folder: Path) -> Reference:
    reference = _save_external(folder)
    shutil.move(folder / "model.onnx.data", folder / "renamed.data")
    return reference


def _zip_map(folder: Path) -> Reference:
    """Convert a logistic regression of scikit-learn, which gives labels and a ZipMap."""
    rng = np.random.default_rng(0)
    images = crops(8).numpy().reshape(-1, 192) / 4 + 0.5
    regression = LogisticRegression().fit(images, rng.integers(0, 6, len(images)))
    model = to_onnx(regression, images[:1].astype(np.float32), target_opset=17)
    # Images have four dimensions, as in a pipeline that begins with a flattening.
    graph, flat = model.graph, model.graph.input[0].name
    graph.name = "regression"  # else a random one
    graph.node.insert(0, helper.make_node("Flatten", ["image"], [flat]))
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8]))
    onnx.save(model, folder / "model.onnx")
    return Reference(_small, output=1, scores="map")


def _small(image: Any) -> Any:
    resized = np.asarray(image.resize((8, 8), 2), np.float32)
    return channels_first(resized / 255)


def _write_labels() -> None:
    lines = "".join(f"{name}\n" for name in NAMES)
    (FILES / "ten.txt").write_text(lines)
    (FILES / "labels.txt").write_text("cat\ndog\nfox\n")
    (FILES / "two.txt").write_text("no\nyes\n")
    (FILES / "list.json").write_text(json.dumps(NAMES))
    (FILES / "by_id.json").write_text(json.dumps(dict(enumerate(NAMES)), indent=1))
    config = {"model_type": "vit", "id2label": dict(enumerate(NAMES))}
    (FILES / "id2label.json").write_text(json.dumps(config, indent=1))
    (FILES / "to_id.json").write_text(json.dumps({name: i for i, name in enumerate(NAMES)}))
    (FILES / "labels.csv").write_text(
        "id,label\n" + "".join(f"{number},{name}\n" for number, name in enumerate(NAMES))
    )
    (FILES / "broken.json").write_text('{"cat": {"dog": [1, 2')


def _labelled(_: Path) -> Reference:
    _write_labels()
    return Reference(zoo, labels=NAMES)


MAKERS: dict[str, Callable[[Path], Reference]] = {
    **dict.fromkeys(LABELLED, _labelled),
    "zip_map": _zip_map,
    "minus_one": _minus_one,
    "no_shape": _no_shape,
    "qdq": _quantized(QuantFormat.QDQ),
    "qoperator": _quantized(QuantFormat.QOperator),
    "attention": _by_hand(ATTENTION),
    "swish": _by_hand(SWISH),
    "classes_21843": _classes_21843,
    "names_in_file": _names_in_file,
    "unicode": _unicode,
    "external": _external,
    "external_short": _external_short,
    "external_renamed": _external_renamed,
}
