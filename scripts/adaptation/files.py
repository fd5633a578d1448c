"""Writes files completely or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnx import ModelProto

from scripts.repository import onnx_file


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a path to write to, which becomes the file at the end of the block, without an error."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        yield new
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def write_onnx(model: ModelProto, file: Path) -> None:
    """Write a graph, and beside it `file`.data with its weights if it exceeds 2 GiB.

    Raises:
        BuildError: the graph exceeds 2 GiB without its weights.
        OSError: a file cannot be written.
    """
    contents = onnx_file.write(model, file.name)
    for name, content in reversed(contents.items()):  # the file that names the others comes last
        with replacing(file.with_name(name)) as new:
            new.write_bytes(content)
