"""The preprocessing of other libraries, if they are installed, to compare with it."""

import importlib
import importlib.util
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from scripts.repository.errors import BuildError
from scripts.repository.graphs.runner import first_line
from scripts.repository.graphs.signature import Signature
from scripts.repository.graphs.tensors import NUMPY_TYPES
from scripts.repository.metadata import huggingface
from scripts.repository.metadata.folder import describing
from scripts.repository.sources import ClassifierSource
from scripts.repository.steps.preprocess.recipe import is_square

logger = logging.getLogger(__name__)

TIMM = "pretrained_cfg"  # the key by which a config.json is one of timm
Preprocess = Callable[[Image.Image], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Library:
    """A library's own preprocessing: from an RGB image to FP32 [3, height, width]."""

    name: str
    preprocess: Preprocess

    def tensor(self, image: Image.Image, signature: Signature) -> npt.NDArray[Any]:
        """Preprocess an image to the tensor that a graph takes, for one image.

        Raises:
            BuildError: the library gives a tensor that the graph does not take.
        """
        array = self.preprocess(image)[np.newaxis]
        if signature.input_type == "UINT8":
            _check_whole(array)
        array = array if signature.layout == "NCHW" else array.transpose(0, 2, 3, 1)
        return array.astype(NUMPY_TYPES[signature.input_type])


def _check_whole(array: npt.NDArray[Any]) -> None:
    if not np.array_equal(array, array.astype(np.uint8)):
        raise BuildError("its pixels are not whole numbers from 0 to 255, which the graph takes")


def installed(source: ClassifierSource) -> list[Library]:
    """List the installed libraries whose preprocessing a classifier's files or recipe name.

    One that cannot read those files is left out, with a warning.
    """
    folders = describing(source.file.parent) if source.file else []
    makers: dict[str, Callable[[], Preprocess | None]] = {
        "transformers": lambda: _transformers(folders),
        "timm": lambda: _timm(folders),
        "torchvision": lambda: _torchvision(source),
    }
    found = []
    for name, make in makers.items():
        if importlib.util.find_spec(name) is None:
            continue
        try:
            preprocess = make()
        except Exception as error:  # noqa: BLE001 - libraries raise whatever they like
            logger.warning("%s cannot be compared with: %s", name, first_line(error))
            continue
        if preprocess:
            found.append(Library(name, preprocess))
    return found


def _transformers(folders: list[Path]) -> Preprocess | None:
    folder = next((each for each in folders if (each / huggingface.PREPROCESSOR).exists()), None)
    if folder is None:
        return None
    transformers = importlib.import_module("transformers")
    processor = transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False)
    return lambda image: np.asarray(processor(image, return_tensors="np")["pixel_values"][0])


def _timm(folders: list[Path]) -> Preprocess | None:
    files = [folder / huggingface.MODEL for folder in folders]
    configs = [json.loads(file.read_text("utf-8")) for file in files if file.exists()]
    pretrained = next((each[TIMM] for each in configs if TIMM in each), None)
    if pretrained is None:
        return None
    data = importlib.import_module("timm.data")
    transform = data.create_transform(**data.resolve_data_config(pretrained_cfg=pretrained))
    return lambda image: np.asarray(transform(image))


def _torchvision(source: ClassifierSource) -> Preprocess | None:
    recipe = source.recipe
    does = (recipe.rounding, recipe.mode, recipe.antialias, recipe.colour, recipe.pixel_range)
    if does != ("torchvision", "shorter", True, "rgb", (0, 1)) or not is_square(recipe.resize):
        return None
    transforms = importlib.import_module("torchvision.transforms")
    transform = transforms.Compose(
        [
            transforms.Resize(recipe.resize[0], transforms.InterpolationMode(recipe.interpolation)),
            transforms.CenterCrop(recipe.crop),
            transforms.ToTensor(),
            transforms.Normalize(recipe.mean, recipe.std),
        ]
    )
    return lambda image: np.asarray(transform(image))
