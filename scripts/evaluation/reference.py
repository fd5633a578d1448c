"""The reference for agreement: Pillow and onnxruntime beside the server."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scripts.evaluation.errors import EvaluationError
from scripts.repository import manifest, onnx_file, sources
from scripts.repository.catalog import CATALOG
from scripts.repository.fetch import Progress
from scripts.repository.manifest import TEN_CROP_ROLES, Entry
from scripts.repository.metadata import folder
from scripts.repository.onnx_file import Graph
from scripts.repository.original_file import OriginalFile

# One, so that the reference does not take the cores from the server.
THREADS = 1


@dataclass(frozen=True)
class Reference:
    """The file that a classifier was built from, run in its own precision on exact pixels.

    It can be used by several threads at once. `sha256` is that of the file.
    """

    file: OriginalFile
    sha256: str

    def probabilities(self, data: bytes) -> npt.NDArray[np.float64]:
        """Compute the probabilities, FP64 [classes], of an image file.

        Raises:
            ImageError: the image cannot be decoded.
        """
        return self.file.classify(data)


def open_reference(
    name: str,
    repository: Path,
    onnx: Path | None = None,
    *,
    weights: str = "zoo",
    progress: Progress | None = None,
) -> Reference:
    """Find and load the file that a classifier of a model repository was built from.

    The manifest says which file that is, how images are preprocessed for it, and what its scores
    are. Engine, precision and decoding of what is served make no difference.

    Args:
        name: the classifier, or its ensemble of ten crops.
        repository: the model repository.
        onnx: the file, or a folder with it; None downloads that of the zoo, or makes the synthetic
            one again.
        weights: a folder with the zoo's files, or `zoo` to download them.
        progress: called with the number of bytes downloaded and their total.

    Raises:
        EvaluationError: the repository has no such classifier, or the file is not the one that it
            was built from.
        BuildError: the manifest or the file cannot be read, downloaded or run.
    """
    entry, crops = _entry(name, repository)
    path = folder.find_onnx(onnx) if onnx else None
    graph = _graph(name, entry, path, weights, progress)
    if graph.sha256 != entry.source_sha256:
        advice = "give that file, or " if path else ""
        raise EvaluationError(
            f"{path or 'what this release uses'} is not what {name} was built from, "
            f"{entry.source} with the sha256 {entry.source_sha256[:12]}…; "
            f"{advice}build {name} again"
        )
    return Reference(
        OriginalFile(
            graph.model,
            entry.to_recipe(),
            output=entry.output or None,
            layout=entry.layout or None,
            scores=entry.scores,
            crops=crops,
            threads=THREADS,
        ),
        graph.sha256,
    )


def _entry(name: str, repository: Path) -> tuple[Entry, int]:
    """Find the entry of an ensemble, and how many crops of an image the ensemble takes."""
    entries = manifest.read(repository)
    ensembles = {classifier: (entry, 1) for classifier, entry in entries.items()}
    for entry in entries.values():
        if ten_crop := entry.parts.get(TEN_CROP_ROLES[0]):
            ensembles[ten_crop] = entry, entry.crops
    if name not in ensembles:
        known = ", ".join(sorted(ensembles)) or "no classifier"
        raise EvaluationError(
            f"{repository} has {known}, not {name}; give the repository that is served with "
            "--model-repository"
        )
    return ensembles[name]


def _graph(
    name: str, entry: Entry, path: Path | None, weights: str, progress: Progress | None
) -> Graph:
    if path:
        return onnx_file.read(path)
    kind, _, file = entry.source.partition(" ")
    model = next((each for each in CATALOG.values() if f"{each.zoo_file}.onnx" == file), None)
    if kind == "file" or model is None:
        raise EvaluationError(
            f"{name} was built from the file {file}; give it to compare with it: --reference {file}"
        )
    if kind == "synthetic":
        return sources.from_seed(model).load()
    files = None if weights == "zoo" else Path(weights)
    return sources.from_zoo(model, files=files, progress=progress).load()
