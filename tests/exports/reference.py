"""The answers of a framework: its preprocessing, and onnxruntime on its export."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from tests.exports.rows import PHOTOGRAPHS

TOP = 5
# Neighbours of the top five whose logarithms are closer could change places by rounding alone.
LEAST_GAP = 0.002


@dataclass(frozen=True)
class Reference:
    """How a framework classifies an image.

    Attributes:
        preprocess: computes the tensor that the file takes, without the batch.
        scores: how the output becomes probabilities: `softmax`, `sigmoid`, `given`, `logit` and
            `single` (one score for two classes), or `map` (a dictionary for each image).
        output: the number of the output that has the scores.
        labels: one label for each class, if a file has them.
    """

    preprocess: Callable[[Image.Image], Any]
    scores: str = "softmax"
    output: int = 0
    labels: tuple[str, ...] | None = None


def pixels(image: Image.Image) -> Any:
    """Resize and crop as the ONNX Model Zoo's imagenet_preprocess.py does: UINT8 [224, 224, 3]."""
    ratio = 256 / min(image.size)
    width, height = round(ratio * image.width), round(ratio * image.height)
    left, top = width // 2 - 112, height // 2 - 112
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


def channels_first(array: Any) -> Any:
    """Transpose [H, W, C] to [C, H, W]."""
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def zoo(image: Image.Image) -> Any:
    """Preprocess as the ONNX Model Zoo does: FP32 [3, 224, 224]."""
    scaled = pixels(image).astype(np.float32) / 255
    normal = (scaled - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return channels_first(normal.astype(np.float32))


def write(onnx: Path, reference: Reference, file: Path) -> None:
    """Write the top five of each photograph: ids, probabilities, and labels if there are any.

    Raises:
        ValueError: two probabilities are so close that rounding could change their order.
    """
    session = onnxruntime.InferenceSession(_file(onnx), providers=["CPUExecutionProvider"])
    answers = {photo.name: _answer(session, reference, photo) for photo in PHOTOGRAPHS}
    text = json.dumps(answers, indent=1, ensure_ascii=False)
    file.write_text(text + "\n", "utf-8")


def _file(path: Path) -> Path:
    return path / "model.onnx" if path.is_dir() else path


def _answer(session: Any, reference: Reference, file: Path) -> dict[str, Any]:
    tensor = reference.preprocess(Image.open(file).convert("RGB"))[None]
    outputs = session.run(None, {session.get_inputs()[0].name: tensor})
    probabilities = _probabilities(outputs[reference.output], reference.scores)
    ids = np.argsort(-probabilities, kind="stable")[:TOP]
    best = probabilities[ids]
    gaps = -np.diff(np.log(best))
    if len(gaps) and gaps.min() < LEAST_GAP:
        raise ValueError(f"{file.name}: neighbours are too close: {best}; change the seed")
    answer = {
        "ids": ids.tolist(),
        "probabilities": [float(f"{each:.7g}") for each in best],
    }
    if reference.labels:
        answer["labels"] = [reference.labels[each] for each in ids]
    return answer


def _probabilities(output: Any, scores: str) -> Any:
    if scores == "map":
        return np.array([output[0][key] for key in sorted(output[0])], np.float64)
    values = np.asarray(output, np.float64).ravel()
    if scores == "softmax":
        exponents = np.exp(values - values.max())
        return exponents / exponents.sum()
    if scores in {"sigmoid", "logit"}:
        values = 1 / (1 + np.exp(-values))
    return np.array([1 - values[0], values[0]]) if scores in {"logit", "single"} else values
