"""Digests that tell whether a part of a model repository has to be built again."""

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import PIL

# Other versions can write other graphs, or calibrate them on other pixels.
LIBRARIES = (np, onnx, onnxruntime, PIL)
CACHE = "__pycache__"


@functools.cache
def generator() -> str:
    """Hash the code, data and library versions that determine what is written."""
    versions = [library.__version__ for library in LIBRARIES]
    return of_text("\n".join([of_folders([Path(__file__).parent]), *versions]))


def of_folders(folders: Iterable[Path]) -> str:
    """Hash the relative paths and the contents of everything in some folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if CACHE not in path.parts:
                digest.update(f"{path.relative_to(folder.parent)}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
    return digest.hexdigest()


def of_text(text: str) -> str:
    """Hash a text as UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
