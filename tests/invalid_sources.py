"""Image sources that the client cannot load, each of another kind."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from client import SAMPLE, ImageFile


class Unreadable:
    """A file object whose device fails."""

    def read(self) -> bytes:
        raise RuntimeError("the camera is off")


def closed_file() -> io.BytesIO:
    file = io.BytesIO(SAMPLE.read_bytes())
    file.close()
    return file


def closed_picture() -> Image.Image:
    picture = Image.open(SAMPLE)
    picture.close()
    return picture


def truncated_picture() -> Image.Image:
    return Image.open(io.BytesIO(SAMPLE.read_bytes()[:20000]))


def broken_link(folder: Path) -> Path:
    link = folder / "link.jpg"
    link.symlink_to("nowhere.jpg")
    return link


def unwritten_pipe(folder: Path) -> Path:
    pipe = folder / "pipe.jpg"
    os.mkfifo(pipe)
    return pipe


# What is wrong: how to make it in a folder, and a part of the error.
INVALID: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing file": (lambda _: "nowhere.jpg", "No such file"),
    "broken link": (broken_link, "No such file"),
    "folder without images": (lambda folder: folder, "no image in this folder"),
    "pattern without matches": (lambda folder: f"{folder}/*.tiff", "No such file"),
    "path of 5,000 letters": (lambda _: "x" * 5000 + ".jpg", "File name too long"),
    "path with NUL": (lambda _: "a\0b.jpg", "null byte"),
    "pattern with NUL": (lambda _: "a\0*.jpg", "null byte"),
    "path that is not UTF-8": (lambda _: "\ud800.jpg", "can't encode"),
    "endless device": (lambda _: "/dev/zero", "not a file"),
    "pipe without a writer": (unwritten_pipe, "nothing is written to this pipe"),
    "file that cannot be read": (lambda _: "/proc/self/mem", "Input/output error"),
    "URL without a host": (lambda _: "https://", "cannot be downloaded"),
    "URL without a server": (lambda _: "http://127.0.0.1:9/cat.jpg", "cannot be downloaded"),
    "closed file": (lambda _: closed_file(), "closed file"),
    "file opened as text": (lambda _: SAMPLE.open(encoding="utf-8"), "binary mode"),
    "text": (lambda _: io.StringIO("cat"), "binary mode"),
    "file object that fails": (lambda _: Unreadable(), "the camera is off"),
    "image file without bytes": (lambda _: ImageFile("cat.jpg", "cat"), "str, not bytes"),  # type: ignore[arg-type]
    "truncated picture": (lambda _: truncated_picture(), "image file is truncated"),
    "closed picture": (lambda _: closed_picture(), "closed image"),
    "empty picture": (lambda _: Image.new("RGB", (0, 9)), "empty image"),
    "picture without a white": (lambda _: Image.new("F", (9, 9)), "mode F does not define"),
    "empty array": (lambda _: np.zeros((0, 9, 3), np.uint8), "is not an image: give uint8"),
    "array of floats": (lambda _: np.zeros((9, 9, 3)), "is not an image: give uint8"),
    "array of objects": (lambda _: np.array([None]), "is not an image: give uint8"),
    "nothing": (lambda _: None, "NoneType is not an image source"),
    "number": (lambda _: 3, "int is not an image source"),
    "NumPy number": (lambda _: np.float64(3), "float64 is not an image source"),
}
