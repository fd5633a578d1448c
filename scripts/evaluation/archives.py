"""Finds the zoo's archives with test data in a folder, or downloads them from a mirror."""

from collections.abc import Callable, Iterable
from pathlib import Path

import requests

from scripts.evaluation import tensors
from scripts.evaluation.errors import EvaluationError
from scripts.repository import digests
from scripts.repository.catalog import ZooModel

Progress = Callable[[int, int], None]

# The folder of an archive in the zoo's repository and in copies of it.
ZOO_FOLDER = "validated/vision/classification/{family}/model"
# As far as can be known without asking the hosts.
WHEREABOUTS = (
    "The zoo's own downloads ended in July 2025, and its copies on the Hugging Face Hub seem to "
    "have only the .onnx files; older clones with Git LFS, and caches of tests, may have archives"
)
# A server could say that a .gz file is a compressed transfer, which requests would unpack.
AS_IT_IS = {"Accept-Encoding": "identity"}
SECONDS = 10, 60  # to connect, and between two parts of the response
CHUNK = 1 << 20
# An archive holds the model, compressed, and a few tensors.
SLACK = 64 << 20


def find(models: Iterable[ZooModel], folder: Path) -> dict[str, Path]:
    """Find the archives of models in a folder, or in a clone of the zoo's repository.

    Returns:
        The archives that are there, by the models' names.
    """
    found = {}
    for model in models:
        files = (folder / place for place in _places(model))
        if file := next((each for each in files if each.is_file()), None):
            found[model.name] = file
    return found


def require(models: Iterable[ZooModel], folder: Path) -> dict[str, Path]:
    """Find the archives of models as `find` does.

    Raises:
        EvaluationError: some are missing.
    """
    models = list(models)
    found = find(models, folder)
    if missing := [model.archive for model in models if model.name not in found]:
        raise EvaluationError(
            f"{folder} lacks {', '.join(missing)}; put the zoo's archives there, give their folder "
            f"with --data, or give --mirror. {WHEREABOUTS}"
        )
    return found


def check(model: ZooModel, archive: Path) -> None:
    """Verify that a model's archive is the zoo's, by its sha256.

    Raises:
        EvaluationError: it is not the zoo's.
        OSError: it cannot be read.
    """
    tensors.check_type(archive)
    if digests.of_file(archive) != model.archive_sha256:
        raise EvaluationError(
            f"{archive} is not the zoo's {model.archive}, or is incomplete: its sha256 is not "
            f"{model.archive_sha256}; replace it, or give your own with --archive"
        )


def download(
    model: ZooModel, folder: Path, mirror: str, *, progress: Progress | None = None
) -> Path:
    """Download a model's archive to a folder.

    Args:
        model: the zoo model.
        folder: where to put it; it is created if it does not exist.
        mirror: the URL under which the archives are, or the folders of the zoo's repository.
        progress: called with the number of bytes downloaded and their total, 0 if it is unknown.

    Raises:
        EvaluationError: it cannot be downloaded, or its sha256 is wrong.
        OSError: it cannot be stored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{model.archive}.part"
    try:
        _fetch(model, mirror, part, progress)
        if digests.of_file(part) != model.archive_sha256:
            raise EvaluationError(
                f"{mirror} sent a file whose sha256 is not that of the zoo's {model.archive}; use "
                "another mirror"
            )
        return part.replace(folder / model.archive)
    finally:
        part.unlink(missing_ok=True)


def _places(model: ZooModel) -> tuple[str, str]:
    return model.archive, f"{ZOO_FOLDER.format(family=model.family)}/{model.archive}"


def _fetch(model: ZooModel, mirror: str, file: Path, progress: Progress | None) -> None:
    """Download from the first of the possible places that the mirror has."""
    urls = [f"{mirror.rstrip('/')}/{place}" for place in _places(model)]
    try:
        for url in urls:
            with requests.get(url, stream=True, timeout=SECONDS, headers=AS_IT_IS) as response:
                if response.status_code == requests.codes.not_found:
                    continue
                response.raise_for_status()
                _store(model, response, file, progress)
                return
    except requests.RequestException as error:
        reason = str(error).splitlines()[0]
        raise EvaluationError(f"cannot download {model.archive} from {mirror}: {reason}") from error
    raise EvaluationError(f"{' and '.join(urls)} do not exist. {WHEREABOUTS}")


def _store(
    model: ZooModel, response: requests.Response, file: Path, progress: Progress | None
) -> None:
    total = int(response.headers.get("Content-Length", 0))
    limit, done = model.size + SLACK, 0
    with file.open("wb") as output:
        for chunk in response.iter_content(CHUNK):
            done += output.write(chunk)
            if progress:
                progress(done, total)
            if done > limit:
                raise EvaluationError(
                    f"{response.url} is larger than the zoo's {model.archive}; use another mirror"
                )
