"""Runs the file that a classifier was built from, to compare what is served with it."""

import time
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from scripts.repository.graphs.original import run_original
from scripts.repository.graphs.runner import Runner
from scripts.repository.graphs.scores import probabilities, recognise
from scripts.repository.graphs.signature import Signature, inputs, read_signature
from scripts.repository.graphs.tensors import tensor
from scripts.repository.graphs.zip_map import without_zip_maps
from scripts.repository.steps.preprocess.imaging import Busy, load_crops
from scripts.repository.steps.preprocess.recipe import Recipe, Size

Rows = npt.NDArray[np.float64]
BUSY_SECONDS = 0.1


class OriginalFile:
    """The original graph of a classifier, run by onnxruntime on exactly decoded images.

    It can be used by several threads at once.

    Attributes:
        signature: the tensors of the graph that is run; they have the size of the recipe's crop.

    Args:
        model: the graph of the file; it is not changed.
        recipe: how images are preprocessed. They are decoded exactly, whatever it says.
        output: the name of the output with the scores, of several.
        layout: the order of the input's dimensions, NCHW or NHWC; None recognises it.
        scores: the kind of scores, one of `graphs.scores.KINDS`; None recognises it.
        crops: crops of an image, one of `recipe.CROPS`; their mean is taken.
        threads: threads that compute one image; 0 takes one for each core.

    Raises:
        BuildError: onnxruntime cannot run the graph at the size of the crop.
    """

    def __init__(
        self,
        model: ModelProto,
        recipe: Recipe,
        *,
        output: str | None = None,
        layout: str | None = None,
        scores: str | None = None,
        crops: int = 1,
        threads: int = 0,
    ) -> None:
        self._recipe, self._crops = replace(recipe, decoding="exact"), crops
        model = without_zip_maps(model)
        signature = read_signature(model, output=output, layout=layout)
        model, signature = _with_size(model, signature, recipe.crop)
        original = run_original(model, signature, recipe.crop)
        self.signature = original.signature
        self._scores = recognise(original.model, signature.output, original.scores, told=scores)
        self._runner = Runner(original.model, original.signature, threads=threads)

    @property
    def are_logits(self) -> bool:
        """Whether a softmax turns the scores into probabilities."""
        return self._scores.are_logits

    def classify(self, data: bytes) -> Rows:
        """Compute the probabilities, FP64 [classes], of an image file.

        Raises:
            ImageError: the image cannot be decoded.
        """
        crops = pixels(data, self._recipe, self._crops)
        row: Rows = self.run(tensor(crops, self._recipe, self.signature)).mean(axis=0)
        return row

    def run(self, images: npt.NDArray[np.generic]) -> Rows:
        """Compute the probabilities, FP64 [N, classes], of images as the graph takes them."""
        return probabilities(self._runner.run(images), self._scores)


def pixels(data: bytes, recipe: Recipe, crops: int = 1) -> npt.NDArray[np.uint8]:
    """Make the pixels, UINT8 [crops, height, width, channels], that a recipe asks for.

    While other processes decode large images, it waits for them.

    Raises:
        ImageError: the image cannot be decoded.
    """
    while True:
        try:
            images = load_crops(data, recipe, crops)
        except Busy:
            time.sleep(BUSY_SECONDS)
        else:
            stacked = np.array([np.asarray(image) for image in images], np.uint8)
            return stacked.reshape(crops, *recipe.crop, recipe.channels)


def _with_size(model: ModelProto, signature: Signature, size: Size) -> tuple[ModelProto, Signature]:
    """Let a graph with another fixed size declare the size with which it is served."""
    declared = signature.height or size[0], signature.width or size[1]
    if declared == size:
        return model, signature
    height, width = size
    copy = ModelProto()
    copy.CopyFrom(model)
    image = next(value for value in inputs(copy) if value.name == signature.input)
    at = 2 if signature.layout == "NCHW" else 1
    dims = image.type.tensor_type.shape.dim[at : at + 2]
    for dim, side in zip(dims, size, strict=True):
        dim.dim_value = side
    del copy.graph.value_info[:]  # inferred from the size before
    return copy, replace(signature, height=height, width=width)
