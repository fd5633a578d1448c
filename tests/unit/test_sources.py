"""Image sources that the client accepts."""

import asyncio
import io
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client import SAMPLE, Classifier, ImageFile, InvalidImage, Source, expand
from client._sources import load, name_of
from scripts.repository.steps.preprocess.imaging import decode
from tests import images
from tests.web import serving


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Folders with images and other files."""
    for name in ("b.jpg", "a.PNG", "notes.txt", "below/c.webp", "below/deeper/d.gif"):
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


def test_a_missing_file_is_rejected() -> None:
    assert source_of_error("nowhere.jpg", "No such file") == "nowhere.jpg"


def test_every_source_has_a_name() -> None:
    assert name_of(Path("cat.jpg")) == "cat.jpg"
    assert name_of(b"abc") == "3 bytes"
    assert name_of(np.zeros((4, 5, 3), np.uint8)) == "array 4 x 5 x 3"
    assert name_of(Image.new("RGB", (5, 4))) == "image 5 x 4"
    assert name_of(Image.open(SAMPLE)) == str(SAMPLE)
