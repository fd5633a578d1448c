"""SHA-256 digests in hexadecimal: of files, and of what a model repository is built from."""

import functools
import hashlib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import PIL

# Other versions can write other graphs, or calibrate them on other pixels.
LIBRARIES = (np, onnx, onnxruntime, PIL)
CACHE = "__pycache__"
CHUNK = 1 << 16


@functools.cache
def generator() -> str:
    """Hash the code, data and library versions that determine what is written."""
    versions = [library.__version__ for library in LIBRARIES]
    return of_text("\n".join([of_folders([Path(__file__).parent]), *versions]))


def version(package: str) -> str | None:
    """Return the version of a package without importing it; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def of_folders(folders: Iterable[Path]) -> str:
    """Hash the relative paths and the contents of everything in some folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if CACHE not in path.parts:
                digest.update(f"{path.relative_to(folder.parent)}\0".encode())
                digest.update((of_file(path) if path.is_file() else "").encode())
    return digest.hexdigest()


def of_files(folder: Path) -> dict[str, str]:
    """Hash each file in a folder by its relative path; an empty folder ends in / and has no digest.

    Compiled Python is left out, because Triton's Python backend writes it.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if CACHE in name.parts:
            continue
        if not path.is_dir():
            found[str(name)] = of_file(path)
        elif not any(path.iterdir()):
            found[f"{name}/"] = ""
    return found


def difference(folder: Path, expected: dict[str, str]) -> str | None:
    """Describe the first difference from what `of_files` returned: `NAME is missing`, for example.

    Returns:
        None if there is no difference.
    """
    found = of_files(folder)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"{name} is missing"
        if name not in expected:
            return f"{name} is not in the manifest"
        if found[name] != expected[name]:
            return f"{name} does not match its sha256 in the manifest"
    return None


def of_file(file: Path) -> str:
    """Hash the content of a file, of which only a part is in memory at a time."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def of_text(text: str) -> str:
    """Hash a text as UTF-8."""
    return of_bytes(text.encode())


def of_bytes(data: bytes) -> str:
    """Hash what is in memory."""
    return hashlib.sha256(data).hexdigest()
