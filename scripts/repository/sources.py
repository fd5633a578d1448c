"""Sources of classifiers: the zoo, a random seed, or a user's own file."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scripts.repository import onnx_file
from scripts.repository.catalog import ZooModel
from scripts.repository.description import Description, merge
from scripts.repository.errors import BuildError
from scripts.repository.fetch import Progress, fetch, verified
from scripts.repository.graphs import synthetic
from scripts.repository.graphs.signature import Signature, read_signature
from scripts.repository.metadata import folder, onnx_properties, recipes, self_description
from scripts.repository.metadata.normalization import mean_and_std
from scripts.repository.onnx_file import Graph
from scripts.repository.steps.preprocess.recipe import Recipe, Size

DEFAULT_SIZE = (224, 224)
# Pixels as they are, for graphs that normalise by themselves.
UNNORMALIZED = {"pixel_range": (0.0, 255.0), "mean": (0.0,), "std": (1.0,)}
# The usual ratio for ImageNet: resize to 256, crop 224.
RESIZE_OVER_CROP = 256 / 224


@dataclass(frozen=True)
class ClassifierSource:
    """A classifier before it is prepared.

    Attributes:
        name: the classifier's name in the model repository.
        origin: its description in the manifest.
        load: reads or makes the graph, and may raise BuildError.
        recipe: how images are preprocessed for it.
        labels: one label for each class; None for the default of the number of classes.
        scores: the kind of its output, one of `graphs.scores.KINDS`; None to recognise it.
        output: the name of the output with the scores, of several.
        layout: the order of the input's dimensions, NCHW or NHWC, if the graph leaves it open.
        origins: where the fields of the recipe, the labels and the scores come from.
        file: the user's own ONNX file.
    """

    name: str
    origin: str
    load: Callable[[], Graph]
    recipe: Recipe
    labels: tuple[str, ...] | None = None
    scores: str | None = None
    output: str | None = None
    layout: str | None = None
    origins: Mapping[str, str] = field(default_factory=dict, hash=False)
    file: Path | None = None


def from_zoo(
    model: ZooModel, *, files: Path | None = None, progress: Progress | None = None
) -> ClassifierSource:
    """Use a zoo file from the folder `files`, or download it.

    `progress` is called with the number of bytes downloaded and their total.
    """

    def load() -> Graph:
        return onnx_file.read(verified(model, files) if files else fetch(model, progress=progress))

    return ClassifierSource(model.name, f"zoo {model.zoo_file}.onnx", load, model.recipe)


def from_seed(model: ZooModel) -> ClassifierSource:
    """Make a graph with the zoo file's structure and random weights from a fixed seed."""

    def load() -> Graph:
        graph = synthetic.build(model)
        data = graph.SerializeToString(deterministic=True)
        return Graph(graph, hashlib.sha256(data).hexdigest())

    return ClassifierSource(model.name, f"synthetic {model.zoo_file}.onnx", load, model.recipe)


def check_weights(weights: str) -> None:
    """Check what a command's `--weights` names, before any work is done.

    Raises:
        BuildError: it is neither `zoo` nor `synthetic`, nor a folder.
    """
    if weights not in {"zoo", "synthetic"} and not Path(weights).is_dir():
        raise BuildError(f"--weights: no folder {weights}; give zoo, synthetic or a folder")


def from_weights(
    model: ZooModel, weights: str, *, progress: Progress | None = None
) -> ClassifierSource:
    """Use a classifier of the catalogue with the weights that a command's `--weights` names.

    `weights` is `zoo`, `synthetic`, or a folder with the zoo's files; `progress` is that of a
    download.
    """
    if weights == "synthetic":
        return from_seed(model)
    return from_zoo(model, files=None if weights == "zoo" else Path(weights), progress=progress)


def from_file(
    path: Path,
    name: str,
    *options: Description,
    recipe: str | None = None,
    output: str | None = None,
    layout: str | None = None,
) -> ClassifierSource:
    """Use a user's own classifier, described by options, by the files beside it, and by itself.

    `path` is an ONNX file, or a folder with one.

    Options override. Otherwise one source determines the whole preprocessing: `recipe`, the name of
    a recipe or a file with one, or else the first one that is found.

    Raises:
        BuildError: the file is not an image classifier, or its description is contradictory.
    """
    file = folder.find_onnx(path)
    graph = onnx_file.read(file)
    try:
        signature = read_signature(graph.model, output=output, layout=layout)
        found = _found(file, graph, options, recipe=recipe, size=_size(options, signature))
        said, origins = merge([*options, *found, _said_by_graph(signature)])
        resolved = Recipe(**_with_defaults(_scaled(said.recipe, origins)))
    except (BuildError, ValueError) as error:
        raise BuildError(f"{file}: {error}") from error
    return ClassifierSource(
        name,
        f"file {file.name}",
        lambda: graph,
        resolved,
        said.labels,
        said.scores,
        output,
        layout,
        origins,
        file,
    )


def _found(
    file: Path,
    graph: Graph,
    options: Iterable[Description],
    *,
    recipe: str | None,
    size: Size | None,
) -> Iterator[Description]:
    """Find what describes a file; only the first recipe is believed, as a whole."""
    wanted: dict[str, Any] = {"size": size, "preprocessing": recipe is None}
    has_labels = any(option.labels for option in options)
    if own := self_description.read(graph.model):
        found = [own]
    else:
        found = [
            *folder.describe(file.parent, file, labels=not has_labels, **wanted),
            *onnx_properties.describe(graph.model, **wanted),
        ]
    if recipe:
        found.insert(0, recipes.describe(recipe, size))
    is_known = False
    for description in found:
        yield replace(description, recipe={}) if is_known else description
        is_known = is_known or bool(description.recipe)


def _size(options: Iterable[Description], signature: Signature) -> Size | None:
    """Return the size that the graph will be given, as far as it is known."""
    crops = [option.recipe["crop"] for option in options if "crop" in option.recipe]
    return crops[0] if crops else _fixed_size(signature)


def _fixed_size(signature: Signature) -> Size | None:
    if signature.height and signature.width:
        return signature.height, signature.width
    return None


def _said_by_graph(signature: Signature) -> Description:
    fields: dict[str, Any] = {}
    if size := _fixed_size(signature):
        fields["crop"] = size
    if signature.channels == 1:
        fields["colour"] = "grey"
    if signature.input_type == "UINT8":
        fields |= UNNORMALIZED
    return Description("the graph", fields)


def _scaled(said: Mapping[str, Any], origins: Mapping[str, str]) -> Mapping[str, Any]:
    """Bring mean and std of the options to the scale of the pixels, which any source can say."""
    if not {"--mean", "--std"} & {origins.get("mean"), origins.get("std")}:
        return said
    pixel_range = said.get("pixel_range")
    return {**said, **mean_and_std(said.get("mean"), said.get("std"), pixel_range=pixel_range)}


def _with_defaults(said: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the fields of a recipe whose defaults depend on others."""
    height, width = crop = said.get("crop", DEFAULT_SIZE)
    is_covered = said.get("mode", "shorter") == "shorter"
    scale = RESIZE_OVER_CROP if is_covered else 1
    defaults = {"crop": crop, "resize": (round(height * scale), round(width * scale))}
    # ImageNet's mean and standard deviation are those of colours in 0..1.
    if said.get("colour") == "grey" or said.get("pixel_range", (0, 1)) != (0, 1):
        defaults |= {"mean": (0.0,), "std": (1.0,)}
    return {**defaults, **said}
