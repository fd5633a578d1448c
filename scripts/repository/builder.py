"""Builds classifiers into a model repository; each of them completely or not at all."""

import json
import logging
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from onnx import ModelProto

from scripts.repository import contents, digests, manifest
from scripts.repository.calibration import Images
from scripts.repository.catalog import CATALOG
from scripts.repository.contents import Graphs
from scripts.repository.ensemble import IMAGENET_LABELS, LABELS_FILE, ClassifierSpec
from scripts.repository.errors import BuildError
from scripts.repository.execution import Request, Watch, execute
from scripts.repository.graphs import normalization
from scripts.repository.graphs.prepare import Prepared, prepare
from scripts.repository.manifest import ROLES, TEN_CROP_ROLES, Entry, Files
from scripts.repository.sources import ClassifierSource
from scripts.repository.steps.preprocess import fitting
from scripts.repository.steps.preprocess.recipe import Recipe, check_crops, written
from scripts.repository.transaction import Transaction
from scripts.repository.tuning import Tuning

logger = logging.getLogger(__name__)

COLOURS = {1: "grey", 3: "rgb"}
# What Triton accepts as a model's name both in a URL and as a folder.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MAX_NAME = 200  # characters; a file's name has at most 255, and those of the parts are longer
SHARED = "imagenet_"  # the prefix of the steps that classifiers share
# What follows the names of classifiers in those of their parts.
RESERVED = (*ROLES, "10crop", *TEN_CROP_ROLES)
FILES = ("manifest.json", "readme.md")  # of a model repository itself
# What versions before the manifest's second left in the repository when they were killed.
OLD_STAGING = ".staging"


def check_name(name: str) -> None:
    """Check the name of a user's own classifier.

    Raises:
        BuildError: the name is invalid or reserved.
    """
    if not NAME.fullmatch(name):
        raise BuildError(f"invalid model name {name!r}; use letters, digits, '.', '_' and '-'")
    if len(name) > MAX_NAME:
        raise BuildError(
            f"a model name of {len(name)} characters is too long; choose one of at most {MAX_NAME}"
        )
    is_part = any(name == f"{model}_{role}" for model in CATALOG for role in RESERVED)
    if is_part or name in CATALOG or name.startswith(SHARED) or name.casefold() in FILES:
        raise BuildError(f"the name {name} is reserved; choose another with --name")


@contextmanager
def session(repository: Path, names: Collection[str] = ()) -> Iterator["Session"]:
    """Open a repository for changes; another process that does so waits until the block ends.

    `names` are the classifiers that will be built in the block. A step that only they use is
    replaced when its content changes; one that others use too is kept for those.

    Raises:
        BuildError: the folder is not a model repository, or cannot be replaced.
        OSError: a file cannot be read or written.
    """
    manifest.read(repository)  # before anything is created
    try:
        with Transaction(repository) as transaction:
            yield Session(repository, transaction, frozenset(names))
    except OSError as error:
        if error.errno and not error.filename:  # a failed write does not say where
            raise OSError(error.errno, error.strerror, str(repository)) from error
        raise


def add(
    repository: Path,
    source: ClassifierSource,
    *,
    tuning: Tuning | None = None,
    precision: str = "fp32",
    images: Images | None = None,
    crops: int = 1,
) -> Entry:
    """Build one classifier in a session of its own; see `Session.add` and `Request`."""
    with session(repository, {source.name}) as opened:
        return opened.add(source, Request(tuning or Tuning(), precision, images, crops=crops))


class Session:
    """Changes of a repository, each of which takes effect completely or not at all."""

    def __init__(self, repository: Path, transaction: Transaction, names: frozenset[str]) -> None:
        self.repository, self._transaction, self._names = repository, transaction, names
        # The classifiers of which a step was replaced and that are to be built again.
        self._outdated: set[str] = set()

    def add(self, source: ClassifierSource, request: Request, watch: Watch | None = None) -> Entry:
        """Prepare a classifier as requested, and write its models.

        A classifier of the same name is replaced. If a step of other classifiers of the session
        changes with it, all of them take effect when the last one is added.

        Raises:
            BuildError: the classifier cannot be served.
            OSError: a file cannot be read or written.
        """
        made = _make(source, request, watch or Watch())
        staged = self._transaction.stage()
        entries, recorded = manifest.read(staged), manifest.parts(staged)
        names = {name for spec in made.specs for name in spec.parts.values()}
        _check_parts(source.name, names, entries)
        specs = [self._with_steps(spec, entries, recorded) for spec in made.specs]
        parts = contents.of_classifier(specs, made.graphs)
        for name, part in parts.items():
            _delete(staged / name)
            contents.write(staged / name, part)
        entry = replace(
            made.entry,
            parts={role: name for spec in specs for role, name in spec.parts.items()},
            labels=f"{specs[0].postprocess_name}/{LABELS_FILE}",
        )
        written = {name: contents.sha256(part) for name, part in parts.items()}
        self._outdated.discard(source.name)
        self._record(entries | {source.name: entry}, recorded | written, before=entries)
        return entry

    def find_current(self, source: ClassifierSource, request: Request) -> Entry | None:
        """Find the entry of a classifier if building it again would write the same files.

        Returns:
            None if anything that the classifier is built from has changed, the generator included,
            or if its files are not those that were written.
        """
        repository = self._transaction.current
        entry = manifest.read(repository).get(source.name)
        if entry is None or source.name in self._outdated:
            return None
        if entry.inputs_sha256 != _inputs_sha256(source, request):
            return None
        recorded = manifest.parts(repository)
        for part in entry.parts.values():
            if digests.difference(repository / part, recorded.get(part, {})):
                return None
        return entry

    def prune(self, keep: Collection[str]) -> set[str]:
        """Remove the catalogue's classifiers except `keep`; a user's own are left unchanged.

        Returns:
            The names of the removed classifiers.
        """
        entries = manifest.read(self._transaction.current)
        removed = {name for name in entries if name in CATALOG and name not in keep}
        self.remove(removed)
        return removed

    def remove(self, names: Collection[str]) -> None:
        """Remove classifiers, and the models that only they use.

        Raises:
            BuildError: the repository does not have one of them.
        """
        entries = manifest.read(self._transaction.current)
        if unknown := sorted(set(names) - entries.keys()):
            existing = ", ".join(entries) or "no classifier"
            raise BuildError(f"{self.repository} has no {', '.join(unknown)}; it has {existing}")
        if names:
            recorded = manifest.parts(self._transaction.stage())
            kept = {name: entry for name, entry in entries.items() if name not in set(names)}
            self._outdated.difference_update(names)
            self._record(kept, recorded, before=entries)

    def _with_steps(
        self, spec: ClassifierSpec, entries: dict[str, Entry], recorded: dict[str, Files]
    ) -> ClassifierSpec:
        for role in contents.STEP_ROLES:
            spec = self._with_step(role, spec, entries, recorded)
        return spec

    def _with_step(
        self,
        role: str,
        spec: ClassifierSpec,
        entries: dict[str, Entry],
        recorded: dict[str, Files],
    ) -> ClassifierSpec:
        """Choose the step that the classifier uses, which others may use too.

        One with the same content is shared. Otherwise the first one is taken that is not used, or
        only by classifiers that are built in this session.
        """
        variants = contents.variants(role, spec, len(entries) + 1)
        names = [contents.step_name(role, variant) for variant in variants]
        for name, variant in zip(names, variants, strict=True):
            if contents.sha256(contents.of_step(role, variant)) == recorded.get(name):
                return variant
        users = [_users(name, entries) - {spec.name} for name in names]
        at = next(at for at, others in enumerate(users) if others <= self._names)
        self._outdated |= users[at]
        if at and names[at] not in recorded:
            logger.warning(
                "%s uses the new step %s: %s has other settings, for %s",
                spec.name,
                names[at],
                names[0],
                ", ".join(sorted(users[0])),
            )
        return variants[at]

    def _record(
        self, entries: dict[str, Entry], recorded: dict[str, Files], *, before: dict[str, Entry]
    ) -> None:
        """Write the manifest, delete what no classifier uses any more, and commit."""
        staged = self._transaction.stage()
        used = _parts(entries)
        files = {part: digest for part, digest in recorded.items() if part in used}
        manifest.write(staged, entries, files)
        for part in _parts(before) - used:
            _delete(staged / part)
        _delete(staged / OLD_STAGING)
        if not self._outdated:
            self._transaction.commit()


@dataclass(frozen=True)
class _Made:
    """A classifier that is not written yet. The entry lacks the names of its parts.

    `specs` are those of its ensembles, the one for a single crop first.
    """

    specs: tuple[ClassifierSpec, ...]
    graphs: Graphs
    entry: Entry


def _make(source: ClassifierSource, request: Request, watch: Watch) -> _Made:
    graph = source.load()
    try:
        _check_crops(source, request)
        _check_preprocess(source.recipe, request.tuning)
        prepared = prepare(
            graph.model,
            size=source.recipe.crop,
            output=source.output,
            layout=source.layout,
            scores=source.scores,
        )
        _check_recipe(source, prepared)
        _warn_of_normalization(source, prepared, graph.model)
        labels = _labels(source, prepared)
        made = execute(source, prepared, request, watch)
    except BuildError as error:
        raise BuildError(f"{source.name}: {error}") from error
    prepared = made.prepared
    entry = Entry(
        source=source.origin,
        source_sha256=graph.sha256,
        prepared_sha256=digests.of_bytes(b"".join(made.graphs.onnx.values())),
        opset=prepared.opset,
        ir_version=prepared.model.ir_version,
        classes=prepared.classes,
        scores=prepared.scores.kind,
        recipe=asdict(source.recipe),
        labels="",
        parts={},
        precision=request.precision,
        quantization=made.quantization,
        comparison=made.comparison,
        choice=made.choice,
        tuning=made.tuning,
        inputs_sha256=_inputs_sha256(source, request),
        origins={"scores": prepared.scores.origin, **source.origins},
        labels_origin=_labels_origin(source, labels),
        output=prepared.signature.output,
        layout=prepared.signature.layout,
        batches=prepared.batches,
        difference=prepared.difference,
        crops=request.crops,
    )
    spec = ClassifierSpec(
        source.name, prepared, source.recipe, labels, made.tuning, request.precision
    )
    specs = tuple(replace(spec, crops=crops) for crops in sorted({1, request.crops}))
    return _Made(specs, made.graphs, entry)


def _inputs_sha256(source: ClassifierSource, request: Request) -> str:
    inputs = {
        "generator": digests.generator(),
        "origin": source.origin,
        # For a classifier of the catalogue, its origin and the generator determine the graph.
        "graph": None if source.name in CATALOG else source.load().sha256,
        "recipe": asdict(source.recipe),
        "labels": source.labels,
        "scores": source.scores,
        "output": source.output,
        "layout": source.layout,
        "origins": dict(source.origins),
        **request.inputs,
    }
    return digests.of_text(json.dumps(inputs))


def _check_crops(source: ClassifierSource, request: Request) -> None:
    try:
        check_crops(source.recipe, request.crops)
    except ValueError as error:
        raise BuildError(f"{error}; leave out --crops") from error
    if request.crops > 1 and source.recipe.resize == source.recipe.crop:
        logger.warning(
            "%s: the %d crops of a square image are equal but for mirror images, since its sides "
            "are resized to the crop's %s pixels; give a larger --resize",
            *(source.name, request.crops, written(source.recipe.crop)),
        )


def _check_preprocess(recipe: Recipe, tuning: Tuning) -> None:
    """Check that the kernels of the preprocessing step compute what the recipe says."""
    if tuning.preprocess == "cpu" or fitting.is_approximate(recipe):
        return
    if recipe.decoding == "exact":
        reason = "decodes with nvJPEG, not with the bits that exact decoding promises"
    else:
        without = "" if recipe.antialias else " without antialiasing"
        reason = f"cannot resize with {recipe.interpolation}{without}"
    raise BuildError(f"a GPU {reason}; give --preprocess cpu")


def _check_recipe(source: ClassifierSource, prepared: Prepared) -> None:
    height, width = prepared.signature.height, prepared.signature.width
    if height and width and (height, width) != source.recipe.crop:
        crop = written(source.recipe.crop)
        origin = source.origins.get("crop", "the default")
        size = written((height, width))
        raise BuildError(
            f"the graph takes {size} pixels, not a crop of {crop} ({origin}); give --crop {size}"
        )
    if source.recipe.channels != prepared.signature.channels:
        raise BuildError(
            f"the graph takes {prepared.signature.channels} channels, not the colour "
            f"{source.recipe.colour}; give --colour {COLOURS[prepared.signature.channels]}"
        )


def _warn_of_normalization(
    source: ClassifierSource, prepared: Prepared, original: ModelProto
) -> None:
    if warning := normalization.warning(original, prepared.signature, source.recipe):
        logger.warning("%s: %s", source.name, warning)


def _labels(source: ClassifierSource, prepared: Prepared) -> tuple[str, ...]:
    if source.labels is None:
        is_imagenet = prepared.classes == len(IMAGENET_LABELS)
        return IMAGENET_LABELS if is_imagenet else _numbered(prepared.classes)
    if len(source.labels) != prepared.classes:
        origin = _labels_origin(source, source.labels)
        raise BuildError(
            f"the graph has {prepared.classes} classes, but {origin} has {len(source.labels)} "
            "labels; give others with --labels"
        )
    return source.labels


def _labels_origin(source: ClassifierSource, labels: tuple[str, ...]) -> str:
    if source.labels is not None:
        return source.origins.get("labels", "the source")
    return "ImageNet's, assumed for 1,000 classes" if labels == IMAGENET_LABELS else "numbers"


def _numbered(classes: int) -> tuple[str, ...]:
    return tuple(f"class {number}" for number in range(classes))


def _check_parts(name: str, parts: set[str], entries: dict[str, Entry]) -> None:
    for other, entry in entries.items():
        own = {part for part in entry.parts.values() if not part.startswith(SHARED)}
        if other != name and (taken := own & parts):
            raise BuildError(f"{min(taken)} belongs to {other}; choose another with --name")


def _parts(entries: dict[str, Entry]) -> set[str]:
    return {part for entry in entries.values() for part in entry.parts.values()}


def _users(part: str, entries: dict[str, Entry]) -> set[str]:
    return {name for name, entry in entries.items() if part in entry.parts.values()}


def _delete(folder: Path) -> None:
    """Delete a folder or a link to one, if it exists."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
