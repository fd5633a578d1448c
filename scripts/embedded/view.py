"""What a server loads of a model repository."""

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from scripts.embedded.installation import ServerError
from scripts.repository import manifest

logger = logging.getLogger(__name__)

CONFIG = "config.pbtxt"
SLOW_SECONDS = 1  # a verification above this time is reported


@dataclass(frozen=True)
class View:
    """The models of a repository that a server loads.

    Attributes:
        repository: the model repository, without symbolic links in its path.
        parts: the names of the models.
        ensembles: those of them that classify images; empty for a repository of other origin.
        state: identifies the build of the repository; None for a repository of other origin.
    """

    repository: Path
    parts: tuple[str, ...]
    ensembles: tuple[str, ...]
    state: object

    def verify(self) -> None:
        """Compare all files with the manifest.

        Raises:
            UserError: a file is missing, changed or unknown; the message names it.
        """
        if self.state is None:
            logger.warning("%s has no %s and is not verified", self.repository, manifest.FILE)
            return
        start = time.monotonic()
        if unknown := manifest.verify(self.repository, self.parts):
            logger.warning(
                "cannot verify %s, which an older version built; build it again",
                ", ".join(sorted(unknown)),
            )
        if (seconds := time.monotonic() - start) > SLOW_SECONDS:
            logger.warning("verified %s in %.0f s", self.repository, seconds)

    def link(self, folder: Path) -> None:
        """Create `folder` as a model repository with a link to each model."""
        folder.mkdir()
        for part in self.parts:
            (folder / part).symlink_to(self.repository / part)

    def is_current(self) -> bool:
        """Return whether the repository has not been built again since."""
        return self.state == _state(self.repository)


def view(repository: Path, models: Sequence[str] = ()) -> View:
    """Choose what to load: the given models and what they need, or all.

    If the repository has a manifest, folders that it does not list are ignored.

    Raises:
        UserError: there is no model, a model is unknown, or the manifest is damaged.
    """
    repository = repository.resolve()
    if not any(repository.glob(f"[!.]*/{CONFIG}")):
        raise ServerError(
            f"{repository} contains no model; build one: python -m scripts.build_repository"
        )
    if (repository / manifest.FILE).exists():
        entries = manifest.read(repository)
        needs = {name: set(entry.parts.values()) for name, entry in entries.items()}
        parts = set[str]().union(*needs.values()) - set(entries)
        needs |= {part: needed for part, needed in _steps(repository).items() if part in parts}
        chosen = models or sorted(entries)
    else:
        needs, entries = _steps(repository), {}
        chosen = models or sorted(needs)
    for name in chosen:
        if name not in needs:
            raise ServerError(f"'{name}': model not found in {repository}")
    parts = set[str]().union(*(needs[name] for name in chosen))
    return View(
        repository,
        tuple(sorted(parts)),
        tuple(name for name in chosen if name in entries),
        _state(repository),
    )


def _state(repository: Path) -> object:
    """Identify a build: it replaces the manifest by another file."""
    try:
        file = (repository / manifest.FILE).stat()
    except FileNotFoundError:
        return None
    return file.st_ino, file.st_mtime_ns


def _steps(repository: Path) -> dict[str, set[str]]:
    """Return each model's name with itself and, for an ensemble, the models that it needs."""
    files = repository.glob(f"[!.]*/{CONFIG}")
    steps = {file.parent.name: _step_names(file) for file in files}

    def needed(names: Iterable[str], found: frozenset[str] = frozenset()) -> frozenset[str]:
        for name in set(names) - found:
            found = needed(steps.get(name, ()), found | {name})
        return found

    return {name: set(needed([name])) for name in steps}


def read_config(file: Path) -> pb.ModelConfig | None:
    """Read a config.pbtxt; None if it is broken: Triton says what is wrong with it."""
    try:
        return text_format.Parse(file.read_text("utf-8"), pb.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError):
        return None


def _step_names(file: Path) -> list[str]:
    config = read_config(file)
    return [step.model_name for step in config.ensemble_scheduling.step] if config else []
