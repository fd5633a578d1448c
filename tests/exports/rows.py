"""What people have: an export, the options that it needs, and what must come of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

FILES = Path(__file__).with_name("files")
ANSWERS = Path(__file__).with_name("answers")
REAL_WEIGHTS = Path(__file__).parents[2] / "build" / "exports"  # git ignores it
PHOTOGRAPHS = (
    Path(__file__).parents[2] / "client" / "sample" / "chelsea.jpg",
    Path(__file__).with_name("photographs") / "harbour.png",
    Path(__file__).with_name("photographs") / "tower.png",
)


@dataclass(frozen=True)
class Row:
    """One kind of export.

    Attributes:
        name: the classifier's name; its files and its answers have this name, too.
        people: what people have, as the documentation says it.
        options: those of the command that it needs, beside `--onnx` and `--name`; FILES and
            PHOTOGRAPHS stand for folders.
        onnx: the value of `--onnx`, in FILES.
        said: what the command must print.
        refused: what the command must print if it must not build this export.
        compared: whether the framework's answers are expected.
        tolerance: how far a probability may be from the framework's.
        answers: the name of the answers, if it is another.
    """

    name: str
    people: str
    options: str = ""
    onnx: str = ""
    said: str = ""
    refused: str = ""
    compared: bool = True
    tolerance: float = 1e-3
    answers: str = ""

    @property
    def path(self) -> Path:
        """The file or folder for `--onnx`."""
        return FILES / (self.onnx or f"{self.name}/model.onnx")

    @property
    def answers_file(self) -> Path:
        """What the framework answers."""
        return ANSWERS / f"{self.answers or self.name}.json"

    @property
    def arguments(self) -> list[str]:
        """The options of the command, with decoding that is exact."""
        folders = {"FILES": FILES, "PHOTOGRAPHS": PHOTOGRAPHS[-1].parent}
        options = self.options.split()
        for name, folder in folders.items():
            options = [each.replace(name, str(folder)) for each in options]
        return ["--onnx", str(self.path), "--name", self.name, *options, "--decoding", "exact"]


# Exports of torch, for the ONNX Model Zoo's preprocessing, which needs no options.
EXPORTS = (
    Row("dynamo_one_image", "torch's default export, an example of one image"),
    Row("dynamo_vit", "the same for a vision transformer"),
    Row("dynamo_convnext", "the same for a network like ConvNeXt"),
    Row("dynamo_swin", "the same for a network like Swin, with windows"),
    Row("dynamo_batch", "torch's default export with a variable batch"),
    Row("legacy_vit", "the older exporter, a vision transformer, one image"),
    Row("legacy_batch", "the older exporter with `dynamic_axes`"),
    Row("forgot_eval", "`model.eval()` forgotten, default export", refused="eval()"),
    Row("forgot_eval_legacy", "`model.eval()` forgotten, older exporter", refused="eval()"),
    Row("fp16", "FP16 input and output (`model.half()`)"),
    Row("uint8", "UINT8 input, channels first", "--normalization none"),
    Row("uint8_nhwc", "UINT8 input, channels last", "--normalization none"),
    Row("maps", "scores [N, C, 1, 1] of a network of convolutions only"),
    Row("two_outputs", "two outputs, one called `logits`"),
    Row("two_outputs_named", "two outputs with names that say nothing", "--output-name second"),
    Row(
        "two_outputs_unnamed",
        "the same, no option",
        onnx="two_outputs_named/model.onnx",
        refused="--output-name",
    ),
    Row(
        "zip_map",
        "labels and a ZipMap, as scikit-learn's converter writes",
        "--mean 0 0 0 --std 1 1 1 --resize-mode squash --resize 8",
    ),
    Row("minus_one", "dimensions of -1"),
    Row("no_shape", "an output without a shape"),
    Row("few_classes", "fewer than five classes, names in a file", "--labels FILES/labels.txt"),
    Row(
        "one_logit",
        "one logit for two classes",
        "--scores sigmoid --labels FILES/two.txt",
    ),
    Row(
        "one_logit_unsaid",
        "the same, no option",
        onnx="one_logit/model.onnx",
        refused="--scores sigmoid",
    ),
    Row("one_sigmoid", "one sigmoid for two classes", "--labels FILES/two.txt"),
    Row("multi_label", "several labels at once, sigmoid at the end"),
    Row("multi_label_logits", "several labels at once, no sigmoid", "--scores sigmoid"),
    Row("probabilities", "softmax at the end"),
    Row("log_probabilities", "log-softmax at the end"),
    Row("qdq", "already quantised (QDQ)"),
    Row("qoperator", "already quantised (QOperator)"),
    Row(
        "qdq_int8",
        "already quantised, to be quantised again",
        "--precision int8 --calibration PHOTOGRAPHS",
        onnx="qdq/model.onnx",
        refused="quantised already",
    ),
    Row("attention", "opset 23 with Attention and RMSNormalization"),
    Row("swish", "opset 24 with Swish"),
    Row("classes_21843", "21,843 classes"),
    Row("imagenet", "any 1,000 outputs", said="ImageNet"),
    Row("names_in_file", "names in the ONNX file's metadata"),
    Row(
        "labels_list",
        "labels as a JSON list",
        "--labels FILES/list.json",
        onnx="legacy_batch/model.onnx",
    ),
    Row(
        "labels_by_id",
        "labels as JSON {id: label}",
        "--labels FILES/by_id.json",
        onnx="legacy_batch/model.onnx",
    ),
    Row(
        "labels_to_id",
        "labels as JSON {label: id}",
        "--labels FILES/to_id.json",
        onnx="legacy_batch/model.onnx",
    ),
    Row(
        "labels_config",
        "labels in `config.json` of Hugging Face",
        "--labels FILES/id2label.json",
        onnx="legacy_batch/model.onnx",
    ),
    Row("labels_csv", "labels as CSV", "--labels FILES/labels.csv", onnx="legacy_batch/model.onnx"),
    Row(
        "labels_broken",
        "JSON that is no labels",
        "--labels FILES/broken.json",
        onnx="legacy_batch/model.onnx",
        refused="broken.json",
    ),
    Row(
        "unicode",
        "spaces and letters of other alphabets in the path",
        onnx="unicode/мои файлы/класс 1 é.onnx",
    ),
    Row(
        "external",
        "external data behind links, as in the Hugging Face cache",
        onnx="external/snapshot/model.onnx",
    ),
    Row(
        "external_short",
        "external data that is cut",
        onnx="external_short/model.onnx",
        refused="model.onnx.data",
    ),
    Row(
        "external_renamed",
        "external data that was renamed",
        onnx="external_renamed/model.onnx",
        refused="model.onnx.data",
    ),
    Row("own_normalization", "the graph normalises 0..255 by itself", "--normalization none"),
    Row(
        "own_normalization_unsaid",
        "the same, no option",
        onnx="own_normalization/model.onnx",
        said="--normalization none",
        compared=False,
    ),
)

# Preprocessing of several frameworks, for one network.
PLAIN = "plain/model.onnx"
RECIPES = (
    Row(
        "torchvision",
        "torchvision's bilinear weights and its rounding",
        "--resize 104 --rounding torchvision",
        PLAIN,
    ),
    Row(
        "torchvision_file",
        "torchvision's bicubic weights, `weights.transforms()` printed",
        "--recipe FILES/torchvision.txt",
        PLAIN,
    ),
    Row(
        "nearest",
        "nearest pixel, each side by itself (Keras' `load_img`)",
        "--interpolation nearest --resize-mode squash --resize 96",
        PLAIN,
    ),
    Row("lanczos", "Lanczos", "--interpolation lanczos --resize 104 --rounding torchvision", PLAIN),
    Row("box", "box filter", "--interpolation box --resize 104 --rounding torchvision", PLAIN),
    Row(
        "hamming",
        "Hamming filter",
        "--interpolation hamming --resize 104 --rounding torchvision",
        PLAIN,
    ),
    Row(
        "no_antialias",
        "torchvision on tensors with `antialias=False`",
        "--no-antialias --resize 104 --rounding torchvision",
        PLAIN,
    ),
    Row(
        "opencv",
        "OpenCV: BGR, INTER_LINEAR, Caffe's mean in 0..255",
        "--colour bgr --interpolation opencv --resize-mode squash --resize 96 --pixel-range 0 255"
        " --mean 123.68 116.779 103.939 --std 1 1 1",
    ),
    Row(
        "letterbox",
        "letterbox on grey (Pillow's `ImageOps.pad`)",
        "--resize-mode letterbox --resize 96 --fill 114 114 114",
        PLAIN,
    ),
    Row(
        "minus_one_to_one",
        "-1..1 (Inception, TensorFlow)",
        "--resize 104 --rounding torchvision --pixel-range -1 1 --mean 0 0 0 --std 1 1 1",
        PLAIN,
    ),
    Row(
        "mean_in_0_255",
        "mean and std in 0..255",
        "--resize 104 --rounding torchvision --mean 123.675 116.28 103.53"
        " --std 58.395 57.12 57.375",
        PLAIN,
    ),
    Row("wide", "an image that is not square", "--resize-mode squash --resize 64x96 --crop 64x96"),
    Row("grey", "one channel", "--resize 36 --rounding torchvision --mean 0.5 --std 0.5"),
    Row("clip", "CLIP's preprocessing by its name", "--recipe clip", "legacy_batch/model.onnx"),
)

# Folders of the Hugging Face Hub, which say everything.
FOLDERS = (
    Row("hf_vit", "ViT exported by Optimum: each side by itself", onnx="hf_vit"),
    Row("hf_resnet", "ResNet exported by Optimum: `crop_pct`", onnx="hf_resnet"),
    Row("hf_mobilevit", "MobileViT exported by Optimum: BGR", onnx="hf_mobilevit"),
    Row("hf_swin", "Swin exported by Optimum: bicubic", onnx="hf_swin"),
    Row("hf_dinov2", "DINOv2 exported by Optimum: shorter side and crop", onnx="hf_dinov2"),
    Row("timm", "timm with `config.json`: bicubic, `crop_pct`, `label_names`", onnx="timm"),
)

# Channels last.
KERAS = (
    Row(
        "keras_export",
        "Keras' own export, `preprocess_input` of -1..1",
        "--recipe keras-tf --labels FILES/ten.txt",
    ),
    Row(
        "tf2onnx",
        "tf2onnx, with Rescaling in the graph",
        "--normalization none --interpolation nearest --resize-mode squash --resize 96",
    ),
    Row("keras_caffe", "Keras, `preprocess_input` of Caffe (BGR)", "--recipe keras-caffe"),
)

# Of these, one of each kind is served by OpenVINO as well.
ON_OPENVINO = (
    "keras_caffe",
    "legacy_vit",
    "fp16",
    "uint8_nhwc",
    "two_outputs_named",
    "one_logit",
    "qdq",
    "attention",
)


def _on_openvino(row: Row) -> Row:
    return replace(
        row,
        name=f"{row.name}_openvino",
        options=f"{row.options} --engine openvino".strip(),
        onnx=str(row.path.relative_to(FILES)),
        answers=row.name,
    )


OPENVINO = (
    *(_on_openvino(row) for row in (*KERAS, *EXPORTS) if row.name in ON_OPENVINO),
    Row(
        "zip_map_openvino",
        "operators that OpenVINO does not have, such as scikit-learn's",
        "--mean 0 0 0 --std 1 1 1 --resize-mode squash --resize 8 --engine openvino",
        onnx="zip_map/model.onnx",
        refused="--engine onnxruntime",
    ),
)

SECTIONS = {
    "Preprocessing": RECIPES,
    "Folders of Hugging Face and timm": FOLDERS,
    "Keras and TensorFlow": KERAS,
    "Graphs and scores": EXPORTS,
    "On OpenVINO": OPENVINO,
}


def rows() -> Iterator[Row]:
    """Go through all rows."""
    for section in SECTIONS.values():
        yield from section
