"""Writes classifiers into a model repository; each of them completely or not at all."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from onnx import ModelProto

from scripts.repository import digests, manifest
from scripts.repository.catalog import CATALOG
from scripts.repository.config import Ensemble, Part, to_pbtxt
from scripts.repository.ensemble import (
    IMAGENET_LABELS,
    LABELS_FILE,
    ClassifierSpec,
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
# What Triton accepts as a model's name both in a URL and as a folder.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MAX_PROTOBUF = 2**31 - 1


@dataclass(frozen=True)
class Graphs:
    """The two ONNX files of a classifier, for normalised tensors and for pixels."""

    onnx: bytes
    pixels: bytes


def check_name(name: str) -> None:
    """Check the name of a user's own classifier.

    Raises:
        BuildError: the name is invalid or reserved.
    """
    if not NAME.fullmatch(name):
        raise BuildError(f"invalid model name {name!r}; use letters, digits, '.', '_' and '-'")
    if name in CATALOG or name.startswith("imagenet_"):
        raise BuildError(f"the name {name} is reserved; choose another with --name")


def add(
    repository: Path,
    source: ClassifierSource,
    *,
    tuning: Tuning | None = None,
    quantize: Quantize | None = None,
) -> Entry:
    """Prepare a classifier, quantise it if requested, and write its models into the repository.

    A classifier of the same name is replaced; others are left unchanged.

    Raises:
        BuildError: the classifier cannot be served, or the folder is not a model repository.
        OSError: a file cannot be read or written.
    """
    entries = manifest.read(repository)
    tuning = tuning or Tuning()
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
    spec = ClassifierSpec(source.name, prepared, source.recipe, labels, tuning)
    _check_parts(spec, entries)
    _install(repository, spec, graphs)

    quantization = quantized.quantization if quantized else None
    images_sha256 = quantization.images_sha256 if quantization else None
    entry = Entry(
        source=source.origin,
        source_sha256=graph.sha256,
        prepared_sha256=hashlib.sha256(graphs.onnx).hexdigest(),
        opset=prepared.opset,
        ir_version=prepared.model.ir_version,
        classes=prepared.classes,
        scores=prepared.scores,
        recipe=asdict(source.recipe),
        labels=f"{spec.postprocess_name}/{LABELS_FILE}",
        parts=spec.parts,
        precision="int8" if quantized else "fp32",
        quantization=quantization,
        tuning=tuning,
        inputs_sha256=_inputs_sha256(source, tuning, images_sha256),
    )
    _record(repository, entries | {source.name: entry}, before=entries)
    return entry


def find_current(
    repository: Path, source: ClassifierSource, *, tuning: Tuning, images_sha256: str | None = None
) -> Entry | None:
    """Find the entry of a classifier if building it again would write the same files.

    `images_sha256` is the digest of the calibration images, or None for FP32.

    Returns:
        None if anything that the classifier is built from has changed, the generator included, or
        if its files are not those that were written.
    """
    entry = manifest.read(repository).get(source.name)
    if entry is None or entry.inputs_sha256 != _inputs_sha256(source, tuning, images_sha256):
        return None
    recorded = manifest.parts(repository)
    for part in entry.parts.values():
        if digests.difference(repository / part, recorded.get(part, {})):
            return None
    return entry


def prune(repository: Path, keep: Collection[str]) -> set[str]:
    """Remove the catalogue's classifiers except `keep`; a user's own are left unchanged.

    Returns:
        The names of the removed classifiers.
    """
    removed = {name for name in manifest.read(repository) if name in CATALOG and name not in keep}
    remove(repository, removed)
    return removed


def remove(repository: Path, names: Collection[str]) -> None:
    """Remove classifiers, and the models that only they use.

    Raises:
        BuildError: the repository does not have one of them.
    """
    entries = manifest.read(repository)
    if unknown := sorted(set(names) - entries.keys()):
        existing = ", ".join(entries) or "no classifier"
        raise BuildError(f"{repository} has no {', '.join(unknown)}; it has {existing}")
    if names:
        kept = {name: entry for name, entry in entries.items() if name not in set(names)}
        _record(repository, kept, before=entries)


def _inputs_sha256(source: ClassifierSource, tuning: Tuning, images_sha256: str | None) -> str:
    # For a classifier of the catalogue, its origin and the generator determine the graph.
    graph = None if source.name in CATALOG else _serialize(source.load().model)
    inputs = {
        "generator": digests.generator(),
        "origin": source.origin,
        "graph": hashlib.sha256(graph).hexdigest() if graph else None,
        "recipe": asdict(source.recipe),
        "labels": source.labels,
        "tuning": asdict(tuning),
        "images": images_sha256,
    }
    return digests.of_text(json.dumps(inputs))


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
        raise BuildError("the graph exceeds the 2 GiB limit of an ONNX file")
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _check_parts(spec: ClassifierSpec, entries: dict[str, Entry]) -> None:
    for name, entry in entries.items():
        own = {part for part in entry.parts.values() if not part.startswith("imagenet_")}
        if name != spec.name and (taken := own & set(spec.parts.values())):
            raise BuildError(f"{taken.pop()} belongs to {name}; choose another with --name")


def _install(repository: Path, spec: ClassifierSpec, graphs: Graphs) -> None:
    staging = repository / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        _write_step(staging, preprocess_part(spec), STEPS / "preprocess")
        _write_step(staging, postprocess_part(spec), STEPS / "postprocess")
        _write_graph(staging, onnx_part(spec), graphs.onnx)
        _write_graph(staging, pixels_part(spec), graphs.pixels)
        _write_model(staging, ensemble(spec))
        for role in ("postprocess", "pixels", "onnx"):
            _write_labels(staging / spec.parts[role], spec.labels)
        for part in spec.parts.values():
            _swap(staging / part, repository / part)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_model(folder: Path, model: Part | Ensemble) -> Path:
    version = folder / model.name / VERSION
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(to_pbtxt(model), "utf-8")
    return version


def _write_step(folder: Path, part: Part, step: Path) -> None:
    version = _write_model(folder, part)
    for file in step.glob("*.py"):
        shutil.copyfile(file, version / file.name)


def _write_graph(folder: Path, part: Part, data: bytes) -> None:
    version = _write_model(folder, part)
    (version / "model.onnx").write_bytes(data)


def _write_labels(folder: Path, labels: tuple[str, ...]) -> None:
    # A copy for each model, since a path out of the model's folder fails in object stores.
    text = "".join(f"{label}\n" for label in labels)
    (folder / LABELS_FILE).write_text(text, "utf-8")


def _swap(new: Path, place: Path) -> None:
    old = new.with_name(f"{new.name}.old")
    if place.exists():
        place.rename(old)
    new.rename(place)


def _record(repository: Path, entries: dict[str, Entry], *, before: dict[str, Entry]) -> None:
    files = {part: digests.of_files(repository / part) for part in sorted(_parts(entries))}
    manifest.write(repository, entries, files)
    for part in _parts(before) - _parts(entries):
        shutil.rmtree(repository / part)


def _parts(entries: dict[str, Entry]) -> set[str]:
    return {part for entry in entries.values() for part in entry.parts.values()}
