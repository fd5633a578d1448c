"""Exports of torch, for the preprocessing of the ONNX Model Zoo."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper, parser
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from torch import nn

from tests.exports.networks import CLASSES, calibrate, crops, export, export_legacy, plain
from tests.exports.reference import Reference, channels_first, pixels, zoo
from tests.exports.rows import FILES

NAMES = tuple(f"bird {number}" for number in range(CLASSES))
LABELLED = ("labels_list", "labels_by_id", "labels_to_id", "labels_config", "labels_csv")


class VisionTransformer(nn.Module):
    """One layer of attention, written as torchvision's ViT is."""

    def __init__(self, width: int = 8, patch: int = 16, places: int = 196) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, places + 1, width) / 4)
        self.layer = nn.TransformerEncoderLayer(
            width, 2, 2 * width, activation="gelu", batch_first=True, norm_first=True
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, image: Any) -> Any:
        places = self.patches(image)
        batch, width = places.shape[0], places.shape[1]
        places = places.reshape(batch, width, -1).permute(0, 2, 1)
        tokens = torch.cat([self.token.expand(batch, -1, -1), places], dim=1) + self.positions
        return self.head(self.layer(tokens)[:, 0])


class ConvNext(nn.Module):
    """One block of ConvNeXt: the channels are moved last for the normalisation."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, width, 8, stride=8)
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head = nn.Linear(width * 16, CLASSES)

    def forward(self, image: Any) -> Any:
        stem = self.stem(image)
        inner = self.norm(self.depthwise(stem).permute(0, 2, 3, 1))
        inner = self.narrow(nn.functional.gelu(self.wide(inner))).permute(0, 3, 1, 2)
        return self.head(nn.functional.avg_pool2d(stem + inner, 7).flatten(1))


class Swin(nn.Module):
    """Attention in windows, which are put in front of the batch by a reshape."""

    def __init__(self, width: int = 16, window: int = 7) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.window = window
        self.stem = nn.Conv2d(3, width, 16, stride=16)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, image: Any) -> Any:
        x = torch.roll(self.norm(self.stem(image).permute(0, 2, 3, 1)), (-3, -3), (1, 2))
        batch, height, width, channels = x.shape
        side = self.window
        x = x.view(batch, height // side, side, width // side, side, channels)
        windows = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, side * side, channels)
        query, key, value = self.qkv(windows).chunk(3, dim=-1)
        weights = (query @ key.transpose(-2, -1) / channels**0.5).softmax(-1)
        return self.head((weights @ value).view(batch, -1, channels).mean(1))


class Wrapped(nn.Module):
    """A network with other arithmetic before and after it."""

    def __init__(
        self,
        network: Any,
        before: Callable[[Any], Any] = lambda image: image,
        after: Callable[[Any], Any] = lambda scores: scores,
    ) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, image: Any) -> Any:
        return self.after(self.network(self.before(image)))


def _calibrated(**settings: Any) -> Any:
    return calibrate(plain(**settings), 224)


def _dynamo(network: Any) -> Callable[[Path], Reference]:
    def make(folder: Path) -> Reference:
        export(calibrate(network(), 224), folder / "model.onnx", 224)
        return Reference(zoo)

    return make


def _dynamo_batch(folder: Path) -> Reference:
    torch.onnx.export(
        _calibrated(), (torch.zeros(2, 3, 224, 224),), str(folder / "model.onnx"), verbose=False,
        external_data=False, dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip
    return Reference(zoo)


def _legacy(
    after: Callable[[Any], Any] = lambda scores: scores, **reference: Any
) -> Callable[[Path], Reference]:
    def make(folder: Path) -> Reference:
        export_legacy(Wrapped(_calibrated(), after=after), folder / "model.onnx", 224)
        return Reference(zoo, **reference)

    return make


def _legacy_vit(folder: Path) -> Reference:
    export_legacy(calibrate(VisionTransformer(), 224), folder / "model.onnx", 224, dynamic=False)
    return Reference(zoo)


def _forgot_eval(folder: Path) -> Reference:
    export(_calibrated().train(), folder / "model.onnx", 224)
    return Reference(zoo)


def _forgot_eval_legacy(folder: Path) -> Reference:
    training = torch.onnx.TrainingMode.TRAINING
    export_legacy(_calibrated().train(), folder / "model.onnx", 224, training=training)
    return Reference(zoo)


def _of_classes(
    classes: int, after: Callable[[Any], Any] = lambda scores: scores, **reference: Any
) -> Callable[[Path], Reference]:
    def make(folder: Path) -> Reference:
        network = _calibrated(classes=classes)
        export_legacy(Wrapped(network, after=after), folder / "model.onnx", 224)
        return Reference(zoo, **reference)

    return make


def _fp16(folder: Path) -> Reference:
    file = folder / "model.onnx"
    torch.onnx.export(
        _calibrated().half(), (torch.zeros(2, 3, 224, 224).half(),), str(file), dynamo=False,
        input_names=["input"], output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
    )  # fmt: skip
    return Reference(lambda image: zoo(image).astype(np.float16))


def _to_unit(image: Any) -> Any:
    return image.float() / 64 - 2


def _own_normalization(folder: Path) -> Reference:
    network = Wrapped(_calibrated(), before=lambda image: (image - 127.5) / 63.75)
    export_legacy(network, folder / "model.onnx", 224)
    return Reference(lambda image: channels_first(pixels(image).astype(np.float32)))


def _uint8(folder: Path) -> Reference:
    network = Wrapped(_calibrated(), before=_to_unit)
    image = torch.zeros(2, 3, 224, 224, dtype=torch.uint8)
    _export_bytes(network, image, folder)
    return Reference(lambda image: channels_first(pixels(image)))


def _uint8_nhwc(folder: Path) -> Reference:
    network = Wrapped(_calibrated(), before=lambda image: _to_unit(image.permute(0, 3, 1, 2)))
    _export_bytes(network, torch.zeros(2, 224, 224, 3, dtype=torch.uint8), folder)
    return Reference(pixels)


def _export_bytes(network: Any, image: Any, folder: Path) -> None:
    torch.onnx.export(
        network, (image,), str(folder / "model.onnx"), dynamo=False,
        input_names=["input"], output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
    )  # fmt: skip


class Two(nn.Module):
    """Scores and the features from which they are computed."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.features, self.head = network[:-1], network[-1]

    def forward(self, image: Any) -> Any:
        features = self.features(image)
        return features, self.head(features)


def _two_outputs(*names: str) -> Callable[[Path], Reference]:
    def make(folder: Path) -> Reference:
        axes = {name: {0: "batch"} for name in ("input", *names)}
        torch.onnx.export(
            Two(_calibrated()), (torch.zeros(2, 3, 224, 224),), str(folder / "model.onnx"),
            dynamo=False, input_names=["input"], output_names=list(names), dynamic_axes=axes,
        )  # fmt: skip
        return Reference(zoo, output=1)

    return make


def _minus_one(folder: Path) -> Reference:
    reference = _legacy()(folder)
    model = onnx.load(folder / "model.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = -1
    onnx.save(model, folder / "model.onnx")
    return reference


def _no_shape(folder: Path) -> Reference:
    reference = _legacy()(folder)
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


def _qdq(folder: Path) -> Reference:
    file, original = folder / "model.onnx", folder / "fp32.onnx"
    reference = _legacy()(folder)
    file.rename(original)
    quantize_static(original, file, _Crops(), quant_format=QuantFormat.QDQ)
    original.unlink()
    return reference


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


def _imagenet(folder: Path) -> Reference:
    network = calibrate(plain(classes=1000, grid=1), 224, spread=3)
    export_legacy(network, folder / "model.onnx", 224)
    return Reference(zoo)


def _names_in_file(folder: Path) -> Reference:
    """Write `names` as the exporter of Ultralytics does: a Python dictionary."""
    reference = _legacy(labels=NAMES)(folder)
    model = onnx.load(folder / "model.onnx")
    helper.set_model_props(model, {"names": str(dict(enumerate(NAMES)))})
    onnx.save(model, folder / "model.onnx")
    return reference


def _unicode(folder: Path) -> Reference:
    reference = _legacy()(folder)
    file = folder / "мои файлы" / "класс 1 é.onnx"
    file.parent.mkdir()
    (folder / "model.onnx").rename(file)
    return reference


def _save_external(folder: Path) -> Reference:
    reference = _legacy()(folder)
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


def _maps(folder: Path) -> Reference:
    return _legacy(lambda scores: scores[:, :, None, None])(folder)


def _zip_map(folder: Path) -> Reference:
    """Convert a logistic regression of scikit-learn, which gives labels and a ZipMap."""
    from skl2onnx import to_onnx  # noqa: PLC0415 - imported only for this export
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    rng = np.random.default_rng(0)
    images = crops(8).numpy().reshape(-1, 192) / 4 + 0.5
    regression = LogisticRegression().fit(images, rng.integers(0, 6, len(images)))
    model = to_onnx(regression, images[:1].astype(np.float32), target_opset=17)
    # Images have four dimensions, as in a pipeline that begins with a flattening.
    graph, flat = model.graph, model.graph.input[0].name
    graph.node.insert(0, helper.make_node("Flatten", ["image"], [flat]))
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8]))
    onnx.save(model, folder / "model.onnx")
    return Reference(_small, output=1, scores="map")


def _small(image: Any) -> Any:
    resized = np.asarray(image.resize((8, 8), 2), np.float32)
    return channels_first(resized / 255)


def write_labels() -> None:
    """Write the files of labels that several rows share."""
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


def _labelled(folder: Path) -> Reference:
    return Reference(zoo, labels=NAMES)


MAKERS: dict[str, Callable[[Path], Reference]] = {
    "dynamo_one_image": _dynamo(plain),
    "dynamo_vit": _dynamo(VisionTransformer),
    "dynamo_convnext": _dynamo(ConvNext),
    "dynamo_swin": _dynamo(Swin),
    "dynamo_batch": _dynamo_batch,
    "legacy_vit": _legacy_vit,
    "legacy_batch": _legacy(),
    **dict.fromkeys(LABELLED, _labelled),
    "forgot_eval": _forgot_eval,
    "forgot_eval_legacy": _forgot_eval_legacy,
    "fp16": _fp16,
    "uint8": _uint8,
    "uint8_nhwc": _uint8_nhwc,
    "maps": _maps,
    "two_outputs": _two_outputs("features", "logits"),
    "two_outputs_named": _two_outputs("first", "second"),
    "zip_map": _zip_map,
    "minus_one": _minus_one,
    "no_shape": _no_shape,
    "few_classes": _of_classes(3, labels=("cat", "dog", "fox")),
    "one_logit": _of_classes(1, scores="logit", labels=("no", "yes")),
    "one_sigmoid": _of_classes(1, torch.sigmoid, scores="single", labels=("no", "yes")),
    "multi_label": _legacy(torch.sigmoid, scores="given"),
    "multi_label_logits": _legacy(scores="sigmoid"),
    "probabilities": _legacy(lambda scores: scores.softmax(1), scores="given"),
    "log_probabilities": _legacy(lambda scores: scores.log_softmax(1)),
    "qdq": _qdq,
    "attention": _by_hand(ATTENTION),
    "swish": _by_hand(SWISH),
    "classes_21843": _classes_21843,
    "imagenet": _imagenet,
    "names_in_file": _names_in_file,
    "unicode": _unicode,
    "external": _external,
    "external_short": _external_short,
    "external_renamed": _external_renamed,
    "own_normalization": _own_normalization,
}
