"""Downloads the zoo's files into a cache, resuming what broke off and verifying what came."""

import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs
import requests
from filelock import FileLock

from scripts.repository.catalog import ZooModel
from scripts.repository.errors import BuildError

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

CHUNK = 1 << 16
CONNECT_SECONDS, READ_SECONDS = 10, 60
# A connection that breaks is taken up again this often without a single new byte.
FRUITLESS_RETRIES = 3
PAUSE_SECONDS = 1.0


class _MirrorError(Exception):
    """This mirror does not have the file, or not the right one."""


def cache_folder() -> Path:
    """Where downloads are kept: below `XDG_CACHE_HOME`, or `~/.cache`."""
    return platformdirs.user_cache_path("triton-imagenet")


def fetch(model: ZooModel, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """Get a zoo file, from the cache or else from the first mirror that has it.

    `progress` is called with the bytes at hand and the bytes in all. A download whose connection
    broke stays in the cache as `.part` and is taken up again there by the next call; after any
    other failure nothing of it stays.

    Raises:
        BuildError: no mirror gave the right file.
        OSError: it cannot be written.
    """
    folder = cache or cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{model.zoo_file}.onnx"
    with FileLock(target.with_suffix(".lock")):
        if target.exists() and sha256_of(target) == model.sha256:
            return target
        _download(model, target, progress or _silent)
    return target


def verified(model: ZooModel, folder: Path) -> Path:
    """Find a zoo file that the user brought.

    Raises:
        BuildError: it is not there, or is another file.
    """
    file = folder / f"{model.zoo_file}.onnx"
    if not file.is_file():
        raise BuildError(f"{model.name}: no {file}; put the zoo's {file.name} there")
    if sha256_of(file) != model.sha256:
        raise BuildError(f"{model.name}: {file} is not the zoo's file: its sha256 is another")
    return file


def sha256_of(file: Path) -> str:
    """Hash a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _silent(_done: int, _total: int) -> None:
    """Report no progress."""


def _download(model: ZooModel, target: Path, progress: Progress) -> None:
    part = target.with_suffix(".part")
    reasons = []
    for url in model.urls:
        try:
            _download_from(url, model, part, progress)
        except _MirrorError as reason:
            reasons.append(f"{urlsplit(url).netloc}: {reason}")
        except OSError as error:
            part.unlink(missing_ok=True)
            raise BuildError(
                f"{model.name}: cannot write {part}: {error.strerror}; "
                f"free {model.size} bytes or set XDG_CACHE_HOME to another disk"
            ) from error
        else:
            part.replace(target)
            return
    said = "; ".join(dict.fromkeys(reasons))
    raise BuildError(
        f"{model.name}: cannot download {target.name}: {said}. Without a network take "
        "--weights synthetic, or a folder with the zoo's files"
    )


def _download_from(url: str, model: ZooModel, part: Path, progress: Progress) -> None:
    fruitless = 0
    while (have := _size(part)) < model.size:
        try:
            _append(url, model, part, progress)
        except requests.RequestException as error:
            fruitless = fruitless + 1 if _size(part) == have else 0
            if not _size(part) or fruitless == FRUITLESS_RETRIES:
                raise _MirrorError(_describe(error, part)) from error
            logger.info("%s: %s, taking it up again", url, error)
            time.sleep(PAUSE_SECONDS)
    if sha256_of(part) != model.sha256:
        part.unlink()
        raise _MirrorError("sent another file, its sha256 is wrong")


def _append(url: str, model: ZooModel, part: Path, progress: Progress) -> None:
    """Ask for what is missing of a file and write it to the end of `part`."""
    have = _size(part)
    headers = {"Range": f"bytes={have}-"} if have else {}
    timeout = (CONNECT_SECONDS, READ_SECONDS)
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if not response.ok:
            raise _MirrorError(f"answered {response.status_code} {response.reason}")
        is_rest = response.status_code == requests.codes.partial_content
        with part.open("ab" if is_rest else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                progress(file.tell(), model.size)
            received = file.tell()
    if received < model.size:
        part.unlink()
        raise _MirrorError(f"sent another file, of {received} bytes")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _describe(error: requests.RequestException, part: Path) -> str:
    if kept := _size(part):
        return f"the connection broke, run again to go on after {kept} bytes"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    return "no answer in time" if isinstance(error, requests.Timeout) else "no connection"
