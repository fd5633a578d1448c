"""Downloads a classifier from the Hugging Face hub: its ONNX file, and what describes it."""

import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined] # of HTTPError
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from scripts.repository.errors import BuildError
from scripts.repository.fetch import Progress, progress_bar, reason
from scripts.repository.graphs.weights import external, external_tensors
from scripts.repository.metadata import custom_vision, folder, huggingface

logger = logging.getLogger(__name__)

ADVICE = (
    "Use a proxy (HTTPS_PROXY), a mirror (HF_ENDPOINT), or a folder that you downloaded (--onnx)"
)
OFFLINE = "HF_HUB_OFFLINE is set and the cache lacks it; unset it, or give a folder with --onnx"
DESCRIBING = {
    huggingface.MODEL,
    huggingface.PREPROCESSOR,
    huggingface.PROCESSOR,
    custom_vision.MANIFEST,
    custom_vision.PROPERTIES,
    *folder.LABELS,
}


def download(
    repository: str, *, revision: str | None = None, progress: Progress | None = None
) -> Path:
    """Download a classifier into the hub's cache, and return its ONNX file there.

    Only the ONNX file, its external data and the files that describe it are downloaded. The
    library's environment variables apply: HF_TOKEN, HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE. Without
    a network, what is in the cache is used, with a warning.

    Args:
        repository: OWNER/NAME, or OWNER/NAME/PATH.onnx for one of several files.
        revision: a branch, tag or commit; None for the main branch.
        progress: called with the number of bytes of a large file that are there, and their total.

    Raises:
        BuildError: the repository does not exist or has no ONNX file, or it cannot be downloaded.
    """
    name, wanted = _split(repository)
    try:
        siblings = HfApi().model_info(name, revision=revision).siblings or []
        names = [file.rfilename for file in siblings]
        chosen = _chosen(names, wanted, name)
        return _download(name, chosen, names, revision, progress)
    except OfflineModeIsEnabled as error:
        if cached := _cached(name, wanted, revision):
            return cached
        raise BuildError(f"{repository}: {OFFLINE}") from error
    except (HTTPError, HFValidationError, OSError) as error:
        is_refused = isinstance(error, HfHubHTTPError | HFValidationError)
        if not is_refused and (cached := _cached(name, wanted, revision)):
            logger.warning("%s is not reachable; %s is that of the cache", constants.ENDPOINT, name)
            return cached
        raise BuildError(f"{repository}: {_reason(error, name, revision)}") from error


def _split(repository: str) -> tuple[str, str | None]:
    """Separate the repository from the path of a file in it."""
    parts = repository.strip("/").split("/")
    return "/".join(parts[:2]), "/".join(parts[2:]) or None


def _chosen(names: Sequence[str], wanted: str | None, repository: str) -> str:
    if wanted is None:
        return folder.choose(names, repository)
    if wanted not in names:
        files = ", ".join(sorted(name for name in names if name.endswith(".onnx"))) or "none"
        raise BuildError(f"{repository} has no file {wanted}; its ONNX files: {files}")
    return wanted


def _download(
    repository: str,
    chosen: str,
    names: Sequence[str],
    revision: str | None,
    progress: Progress | None,
) -> Path:
    def fetch(name: str, report: Progress | None = None) -> Path:
        bar = progress_bar(report)
        return Path(hf_hub_download(repository, name, revision=revision, tqdm_class=bar))

    at = PurePosixPath(chosen).parent
    for name in names:
        path = PurePosixPath(name)
        if path.name in DESCRIBING and path.parent in {PurePosixPath(), at}:
            fetch(name)
    file = fetch(chosen, progress)
    for location in sorted(external_files(file)):
        if (name := str(at / location)) in names:
            fetch(name, progress)
    return file


def external_files(file: Path) -> set[str]:
    """List the files, relative to an ONNX file, that have its external data."""
    try:
        model = onnx.load_model(file, load_external_data=False)
    except DecodeError:
        return set()  # which reading it will say
    return {external(tensor).get("location", "") for tensor in external_tensors(model)}


def _cached(repository: str, wanted: str | None, revision: str | None) -> Path | None:
    """Find an earlier download."""
    try:
        found = Path(snapshot_download(repository, revision=revision, local_files_only=True))
        file = found / wanted if wanted else folder.find_onnx(found)
    except (BuildError, HFValidationError, LocalEntryNotFoundError):
        return None
    return file if file.is_file() else None


def _reason(error: Exception, repository: str, revision: str | None) -> str:
    if isinstance(error, HFValidationError):
        return "this is not a name on the hub; give OWNER/NAME"
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{repository}"
        return f"its owner controls access; accept the conditions at {page} and set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return f"{constants.ENDPOINT} has no such model, or it is private: then set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no revision {revision}; give a branch, tag or commit"
    return f"cannot download it: {reason(error, advice=ADVICE, offline=OFFLINE)}"
