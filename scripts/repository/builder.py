"""Writes classifiers into a model repository, each of them whole or not at all."""

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from onnx import ModelProto

from scripts.repository import manifest
from scripts.repository.catalog import CATALOG
from scripts.repository.config import Ensemble, Part, to_pbtxt
from scripts.repository.ensemble import (
    IMAGENET_LABELS,
    LABELS_FILE,
    Classifier,
    ensemble,
    onnx_part,
    pixels_part,
    postprocess_part,
    preprocess_part,
)
from scripts.repository.errors import BuildError
from scripts.repository.graphs.pixels import with_pixels
from scripts.repository.graphs.prepare import Prepared, prepare
from scripts.repository.graphs.quantize import Quantized
from scripts.repository.manifest import Entry
from scripts.repository.sources import ClassifierSource
from scripts.repository.tuning import Tuning

Quantize = Callable[[ClassifierSource, Prepared], Quantized]

STEPS = Path(__file__).parent / "steps"
STAGING = ".staging"
VERSION = "1"
# What Triton takes as a model's name in a URL and in a folder alike.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MAX_PROTOBUF = 2**31 - 1


@dataclass(frozen=True)
class Graphs:
    """A classifier's two files: for normalised tensors, and for pixels."""

    onnx: bytes
    pixels: bytes


def check_name(name: str) -> None:
    """Refuse a name for a user's own classifier that cannot be one, or is taken.

    Raises:
        BuildError: it is.
    """
    if not NAME.fullmatch(name):
        raise BuildError(f"{name!r} is no model name; use letters, digits, '.', '_' and '-'")
    if name in CATALOG or name.startswith("imagenet_"):
        raise BuildError(f"the name {name} is the project's own; choose another with --name")


def add(
    repository: Path,
    source: ClassifierSource,
    *,
    tuning: Tuning | None = None,
    quantize: Quantize | None = None,
) -> Entry:
    """Prepare a classifier, quantise it if told how, and put its parts into the repository.

    Whatever else is in the repository stays; a classifier of the same name is replaced.

    Raises:
        BuildError: it is not servable, or the folder is no model repository.
        OSError: it cannot be written.
    """
    entries = manifest.read(repository)
    graph = source.load()
    try:
        prepared = prepare(graph.model, size=source.recipe.crop)
        _check_crop(source, prepared)
        labels = _labels(source, prepared)
        quantized = quantize(source, prepared) if quantize else None
        prepared = quantized.prepared if quantized else prepared
        graphs = Graphs(
            onnx=_serialize(prepared.model),
            pixels=_serialize(with_pixels(prepared, source.recipe)),
        )
    except BuildError as error:
        raise BuildError(f"{source.name}: {error}") from error
    classifier = Classifier(source.name, prepared, source.recipe, labels, tuning or Tuning())
    _check_names(classifier, entries)
    _install(repository, classifier, graphs)

    entry = Entry(
        source=source.origin,
        source_sha256=graph.sha256,
        prepared_sha256=hashlib.sha256(graphs.onnx).hexdigest(),
        opset=prepared.opset,
        ir_version=prepared.model.ir_version,
        classes=prepared.classes,
        scores=prepared.scores,
        recipe=asdict(source.recipe),
        labels=f"{classifier.postprocess_name}/{LABELS_FILE}",
        parts=classifier.parts,
        precision="int8" if quantized else "fp32",
        quantization=quantized.quantization if quantized else None,
        tuning=classifier.tuning,
    )
    _record(repository, entries | {source.name: entry}, before=entries)
    return entry


def keep_only(repository: Path, names: set[str]) -> set[str]:
    """Remove the other classifiers from the repository.

    Returns:
        The names of those removed.
    """
    entries = manifest.read(repository)
    kept = {name: entry for name, entry in entries.items() if name in names}
    if kept != entries:
        _record(repository, kept, before=entries)
    return set(entries) - set(kept)


def _check_crop(source: ClassifierSource, prepared: Prepared) -> None:
    size = prepared.signature.height
    if size not in {None, source.recipe.crop}:
        raise BuildError(f"the graph takes {size} x {size}, not a crop of {source.recipe.crop}")


def _labels(source: ClassifierSource, prepared: Prepared) -> tuple[str, ...]:
    if source.labels is None:
        is_imagenet = prepared.classes == len(IMAGENET_LABELS)
        return IMAGENET_LABELS if is_imagenet else _numbered(prepared.classes)
    if len(source.labels) != prepared.classes:
        raise BuildError(
            f"the graph has {prepared.classes} classes and the labels file {len(source.labels)}"
        )
    return source.labels


def _numbered(classes: int) -> tuple[str, ...]:
    return tuple(f"class {number}" for number in range(classes))


def _serialize(model: ModelProto) -> bytes:
    if model.ByteSize() > MAX_PROTOBUF:
        raise BuildError("the graph is larger than the 2 GiB that one ONNX file can hold")
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _check_names(classifier: Classifier, entries: dict[str, Entry]) -> None:
    for name, entry in entries.items():
        own = {part for part in entry.parts if not part.startswith("imagenet_")}
        if name != classifier.name and (taken := own & set(classifier.parts)):
            raise BuildError(f"{taken.pop()} belongs to {name}; choose another with --name")


def _install(repository: Path, classifier: Classifier, graphs: Graphs) -> None:
    staging = repository / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        _write_preprocess(staging, classifier)
        _write_postprocess(staging, classifier)
        _write_graph(staging, onnx_part(classifier), graphs.onnx)
        _write_graph(staging, pixels_part(classifier), graphs.pixels)
        _write_model(staging, ensemble(classifier))
        for part in classifier.parts:
            _swap(staging / part, repository / part)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_model(folder: Path, model: Part | Ensemble) -> Path:
    version = folder / model.name / VERSION
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(to_pbtxt(model), "utf-8")
    return version


def _write_preprocess(folder: Path, classifier: Classifier) -> None:
    version = _write_model(folder, preprocess_part(classifier))
    _copy_step(STEPS / "preprocess", version)


def _write_postprocess(folder: Path, classifier: Classifier) -> None:
    version = _write_model(folder, postprocess_part(classifier))
    _copy_step(STEPS / "postprocess", version)
    labels = "".join(f"{label}\n" for label in classifier.labels)
    (version.parent / LABELS_FILE).write_text(labels, "utf-8")


def _write_graph(folder: Path, part: Part, data: bytes) -> None:
    version = _write_model(folder, part)
    (version / "model.onnx").write_bytes(data)


def _copy_step(step: Path, version: Path) -> None:
    for file in step.glob("*.py"):
        shutil.copyfile(file, version / file.name)


def _swap(new: Path, place: Path) -> None:
    old = new.with_name(f"{new.name}.old")
    if place.exists():
        place.rename(old)
    new.rename(place)


def _record(repository: Path, entries: dict[str, Entry], *, before: dict[str, Entry]) -> None:
    manifest.write(repository, entries)
    for part in _parts(before) - _parts(entries):
        shutil.rmtree(repository / part)


def _parts(entries: dict[str, Entry]) -> set[str]:
    return {part for entry in entries.values() for part in entry.parts}
