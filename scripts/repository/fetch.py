"""Downloads the zoo's files from the Hugging Face Hub and verifies them."""

import logging
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (  # type: ignore[attr-defined] # of HTTPError
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
)

from scripts.repository import digests
from scripts.repository.catalog import ZooModel
from scripts.repository.errors import BuildError

Progress = Callable[[int, int], None]

ADVICE = (
    "Use a proxy (HTTPS_PROXY), a mirror (HF_ENDPOINT), a folder with the zoo's files "
    "(--weights DIR) or random weights (--weights synthetic)"
)
OFFLINE = (
    "HF_HUB_OFFLINE is set and the file is not in the cache; unset it, or use "
    "--weights DIR or --weights synthetic"
)

constants.HF_HUB_DISABLE_TELEMETRY = True
# Xet transfers use other hosts than HF_ENDPOINT, which proxies and mirrors do not know.
constants.HF_HUB_DISABLE_XET = True
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # hide hints and retries


def fetch(model: ZooModel, *, progress: Progress | None = None) -> Path:
    """Return a zoo file from the Hub's cache, and download it first if it is not there.

    The library's environment variables apply: HF_HOME or HF_HUB_CACHE for the cache's folder,
    HF_ENDPOINT for a mirror, HF_HUB_OFFLINE to use only the cache. An interrupted connection is
    resumed. A file with a wrong sha256 is removed.

    Args:
        model: the zoo model.
        progress: called with the number of bytes downloaded and their total.

    Raises:
        BuildError: the file cannot be downloaded or stored, or its sha256 is wrong.
    """
    repository, name = f"onnxmodelzoo/{model.zoo_file}", f"{model.zoo_file}.onnx"
    cached = try_to_load_from_cache(repository, name)
    if isinstance(cached, str) and _is_intact(Path(cached), model):
        return Path(cached)
    try:
        # Fails at once without a connection, which the download itself retries for 23 s.
        get_hf_file_metadata(hf_hub_url(repository, name))
        file = Path(hf_hub_download(repository, name, tqdm_class=progress_bar(progress)))
    except (HTTPError, OSError) as error:
        raise BuildError(f"{model.name}: cannot download {name}: {reason(error)}") from error
    if not _is_intact(file, model):
        raise BuildError(
            f"{model.name}: cannot download {name}: {constants.ENDPOINT} sent a file with a wrong "
            f"sha256. {ADVICE}"
        )
    return file


def verified(model: ZooModel, folder: Path) -> Path:
    """Return a zoo file from a folder that the user provides.

    Raises:
        BuildError: the file is missing, or its sha256 is wrong.
    """
    file = folder / f"{model.zoo_file}.onnx"
    if not file.is_file():
        raise BuildError(f"{model.name}: {file} not found; put the zoo's {file.name} there")
    if digests.of_file(file) != model.sha256:
        raise BuildError(f"{model.name}: {file} is not the zoo's file: its sha256 is wrong")
    return file


def _is_intact(file: Path, model: ZooModel) -> bool:
    """Verify a file of the cache, and remove it from there if its sha256 is wrong."""
    if digests.of_file(file) == model.sha256:
        return True
    file.resolve().unlink()  # the cache's entry is a symbolic link
    file.unlink(missing_ok=True)
    return False


def reason(error: Exception, *, advice: str = ADVICE, offline: str = OFFLINE) -> str:
    """Say in one line why a download failed, and what to do."""
    if isinstance(error, OfflineModeIsEnabled):
        return offline
    if isinstance(error, HfHubHTTPError):
        response = error.response
        return f"{response.url} answered {response.status_code} {response.reason_phrase}. {advice}"
    if isinstance(error, OSError) and error.errno:
        return f"{error.strerror}; free disk space or set HF_HOME to another folder"
    message = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return f"the connection to {constants.ENDPOINT} failed: {message}. {advice}"


def progress_bar(progress: Progress | None) -> type[object]:
    """Make a class with the part of tqdm's interface that the library uses."""

    class Bar:
        def __init__(self, *, total: int, initial: int = 0, **_: object) -> None:
            self.total = total
            self.done = initial

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, count: int) -> None:
            self.done += count
            if progress:
                progress(self.done, self.total)

    return Bar
