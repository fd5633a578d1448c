"""Image sources that the client accepts."""

import asyncio
import io
import os
import struct
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from PIL import Image

from client import SAMPLE, Classifier, ImageFile, InvalidImage, Source, expand
from client._sources import load, name_of
from scripts.repository.steps.preprocess.imaging import decode
from tests import images
from tests.invalid_sources import INVALID
from tests.web import serving


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Folders with images, hidden images and other files."""
    hidden = (".cat.jpg", "._b.jpg", ".DS_Store", ".thumbnails/b.jpg", "below/._c.webp")
    for name in ("b.jpg", "a.PNG", "notes.txt", "below/c.webp", "below/deeper/d.gif", *hidden):
        file = tmp_path / "album" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return tmp_path / "album"


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    """A web server with one photograph."""
    (tmp_path / "cat.jpg").write_bytes(SAMPLE.read_bytes())

    class Website(SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            return f"{tmp_path}{path}"

    with serving(Website) as address:
        yield f"http://{address}"


def names(paths: Iterator[Source], album: Path) -> list[str]:
    return [Path(str(path)).relative_to(album).as_posix() for path in paths]


def read(source: Source) -> bytes:
    return asyncio.run(load(source)).data


def source_of_error(source: Source, message: str) -> str | None:
    """Classify a source that cannot be loaded; no request is sent, so no server is needed."""
    with (
        Classifier("localhost:9") as classifier,
        pytest.raises(InvalidImage, match=message) as error,
    ):
        classifier.image(source)
    return error.value.source


def test_a_folder_is_replaced_by_its_sorted_images(album: Path) -> None:
    assert names(expand([album]), album) == ["a.PNG", "b.jpg"]


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "jpe", "jfif", "png", "webp", "bmp", "gif"])
def test_a_folder_is_searched_for_each_format(tmp_path: Path, suffix: str) -> None:
    image = tmp_path / f"cat.{suffix}"
    image.touch()
    assert list(expand([tmp_path])) == [image]


def test_an_image_that_is_a_broken_link_is_found_in_its_folder(tmp_path: Path) -> None:
    link = tmp_path / "cat.jpg"
    link.symlink_to("nowhere.jpg")
    assert list(expand([tmp_path])) == [link]


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder with an image, and a subfolder that nobody but root may list; we are not root."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        Path(folder, "cat.jpg").touch()
        Path(folder, "below").mkdir(mode=0)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        yield Path(folder)
        if is_root:
            os.seteuid(0)
        Path(folder, "below").chmod(0o700)


def test_a_folder_that_cannot_be_listed_is_kept_and_fails_when_loaded(locked: Path) -> None:
    below = locked / "below"
    assert list(expand([str(below)])) == [below]
    assert list(expand([locked], recursive=True)) == [below, locked / "cat.jpg"]
    assert list(expand([f"{below}/*.jpg"])) == [f"{below}/*.jpg"]
    assert source_of_error(below, "Permission denied") == str(below)


def test_recursive_includes_subfolders(album: Path) -> None:
    found = names(expand([album], recursive=True), album)
    assert found == ["a.PNG", "b.jpg", "below/c.webp", "below/deeper/d.gif"]


@pytest.mark.parametrize(
    ("pattern", "recursive", "expected"),
    [
        ("*.jpg", False, ["b.jpg"]),
        ("[ab].*", False, ["a.PNG", "b.jpg"]),
        ("b*", False, ["b.jpg"]),
        ("**/*.gif", True, ["below/deeper/d.gif"]),
    ],
)
def test_a_pattern_is_replaced_by_its_matches(
    album: Path, pattern: str, recursive: bool, expected: list[str]
) -> None:
    assert names(expand([f"{album}/{pattern}"], recursive=recursive), album) == expected


def test_sources_without_images_are_kept_and_fail_when_loaded(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    nothing: list[Source] = [tmp_path, tmp_path / "folder.jpg", f"{tmp_path}/*.tiff"]
    assert list(expand(nothing)) == nothing
    for source, reason in zip(nothing, ("no image in", "no image in", "No such file"), strict=True):
        assert source_of_error(source, reason) == str(source)


def test_an_existing_file_is_not_treated_as_a_pattern(tmp_path: Path) -> None:
    file = tmp_path / "cat[1].jpg"
    file.write_bytes(b"")
    assert list(expand([str(file)])) == [str(file)]


def test_sources_other_than_existing_paths_are_kept() -> None:
    sources: list[Source] = ["nowhere.jpg", "https://example.com/cat.jpg?size=*", b"*.jpg"]
    assert list(expand(sources)) == sources


@pytest.mark.usefixtures("short_wait_for_pipes")
@pytest.mark.parametrize("kind", INVALID)
def test_any_failure_to_load_a_source_is_an_invalid_image(kind: str, tmp_path: Path) -> None:
    make, reason = INVALID[kind]
    source = make(tmp_path)
    assert list(expand([source])) == [source]
    assert source_of_error(source, reason) == name_of(source)


def test_a_named_pipe_is_read_when_its_writer_comes(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Timer(0.1, pipe.write_bytes, [SAMPLE.read_bytes()])
    writer.start()
    assert read(pipe) == SAMPLE.read_bytes()
    writer.join()


@pytest.mark.parametrize("source", [SAMPLE, str(SAMPLE), SAMPLE.read_bytes()])
def test_a_file_is_sent_unchanged(source: str | Path | bytes) -> None:
    assert read(source) == SAMPLE.read_bytes()


def test_bytes_can_have_a_name() -> None:
    image = asyncio.run(load(ImageFile("s3://photos/cat.jpg", b"abc")))
    assert (image.name, image.data) == ("s3://photos/cat.jpg", b"abc")


def test_a_file_object_is_read() -> None:
    with SAMPLE.open("rb") as file:
        assert name_of(file) == str(SAMPLE)
        assert read(file) == SAMPLE.read_bytes()
    assert name_of(io.BytesIO(b"abc")) == "file object"


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "HSV", "1"])
def test_a_pillow_image_is_encoded_losslessly(mode: str) -> None:
    image = images.photo(mode=mode)
    sent = decode(read(image))
    np.testing.assert_array_equal(np.asarray(sent), np.asarray(image.convert("RGB")))


def test_a_pillow_image_keeps_its_orientation() -> None:
    image = images.photo(60, 40)
    image.getexif()[0x0112] = 6
    assert decode(read(image)).size == (40, 60)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I;16N"])
def test_a_16_bit_pillow_image_is_sent_in_any_byte_order(mode: str) -> None:
    grey = np.asarray(images.photo(mode="L"))
    order = ">u2" if mode == "I;16B" else "<u2"
    deep = (grey.astype(order) * 257).tobytes()
    image = Image.frombytes(mode, (grey.shape[1], grey.shape[0]), deep)
    sent = np.asarray(decode(read(image)))
    np.testing.assert_array_equal(sent, np.stack([grey] * 3, axis=2))


def exif_entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    """One EXIF directory with one entry, little-endian."""
    entry = struct.pack("<HHHI4s", 1, tag, kind, count, value)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + entry + bytes(4)


@pytest.mark.parametrize(
    "exif",
    [
        exif_entry(0x11A, 2, 3, b"72\0"),  # XResolution as text, which Pillow cannot write
        exif_entry(0x112, 8, 1, struct.pack("<hh", -1, 0)),  # orientation -1
        exif_entry(0x112, 2, 2, b"x\0"),  # orientation as text
    ],
)
def test_a_pillow_image_is_sent_without_exif_entries_that_cannot_be_written(exif: bytes) -> None:
    image = Image.open(io.BytesIO(images.encode(images.photo(), "JPEG", exif=exif)))
    np.testing.assert_array_equal(np.asarray(decode(read(image))), np.asarray(image))


def test_a_pillow_image_is_sent_without_its_colour_profile() -> None:
    image = images.photo()
    plain = read(image)
    image.info["icc_profile"] = bytes(1 << 20)
    assert read(image) == plain


def test_an_array_is_encoded_losslessly() -> None:
    array = np.asarray(images.photo())
    np.testing.assert_array_equal(np.asarray(decode(read(array))), array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_an_array_of_another_shape_or_type_is_rejected(array: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(InvalidImage, match=r"give uint8 \[height, width, 3\]"):
        read(array)


def test_a_url_is_downloaded(website: str) -> None:
    assert read(f"{website}/cat.jpg") == SAMPLE.read_bytes()


@pytest.mark.parametrize("url", ["{website}/dog.jpg", "http://127.0.0.1:9/cat.jpg"])
def test_a_url_that_cannot_be_downloaded_is_rejected(website: str, url: str) -> None:
    url = url.format(website=website)
    assert source_of_error(url, "cannot be downloaded") == url


def test_every_source_has_a_name() -> None:
    assert name_of(Path("cat.jpg")) == "cat.jpg"
    assert name_of(b"abc") == "3 bytes"
    assert name_of(np.zeros((4, 5, 3), np.uint8)) == "array 4 x 5 x 3"
    assert name_of(Image.new("RGB", (5, 4))) == "image 5 x 4"
    assert name_of(Image.open(SAMPLE)) == str(SAMPLE)
