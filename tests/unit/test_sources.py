"""What the client takes as an image."""

import asyncio
import io
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client import SAMPLE, ImageFile, InvalidImage, Source, expand
from client._sources import load, name_of
from scripts.repository.steps.preprocess.imaging import decode
from tests import images
from tests.web import serving


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Folders with images, and with what is none."""
    for name in ("b.jpg", "a.PNG", "notes.txt", "below/c.webp", "below/deeper/d.gif"):
        file = tmp_path / "album" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return tmp_path / "album"


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    """A real web server with one photograph."""
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


def test_a_folder_stands_for_its_images_in_sorted_order(album: Path) -> None:
    assert names(expand([album]), album) == ["a.PNG", "b.jpg"]


def test_recursive_looks_into_the_folders_below(album: Path) -> None:
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
def test_a_pattern_stands_for_what_it_matches(
    album: Path, pattern: str, recursive: bool, expected: list[str]
) -> None:
    assert names(expand([f"{album}/{pattern}"], recursive=recursive), album) == expected


def test_what_holds_no_image_stays_and_fails_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    nothing: list[Source] = [tmp_path, tmp_path / "folder.jpg", f"{tmp_path}/*.tiff"]
    assert list(expand(nothing)) == nothing
    for source, reason in zip(nothing, ("no image in", "no image in", "No such file"), strict=True):
        with pytest.raises(InvalidImage, match=reason) as caught:
            read(source)
        assert caught.value.source == str(source)


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tmp_path: Path) -> None:
    file = tmp_path / "cat[1].jpg"
    file.write_bytes(b"")
    assert list(expand([str(file)])) == [str(file)]


def test_what_is_no_path_stays_what_it_is() -> None:
    sources: list[Source] = ["nowhere.jpg", "https://example.com/cat.jpg?size=*", b"*.jpg"]
    assert list(expand(sources)) == sources


@pytest.mark.parametrize("source", [SAMPLE, str(SAMPLE), SAMPLE.read_bytes()])
def test_a_file_is_sent_as_it_is(source: str | Path | bytes) -> None:
    assert read(source) == SAMPLE.read_bytes()


def test_bytes_may_bring_their_name() -> None:
    image = asyncio.run(load(ImageFile("s3://photos/cat.jpg", b"abc")))
    assert (image.name, image.data) == ("s3://photos/cat.jpg", b"abc")


def test_a_file_object_is_read_to_its_end() -> None:
    with SAMPLE.open("rb") as file:
        assert name_of(file) == str(SAMPLE)
        assert read(file) == SAMPLE.read_bytes()
    assert name_of(io.BytesIO(b"abc")) == "file object"


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "HSV", "1"])
def test_a_pillow_image_loses_nothing(mode: str) -> None:
    image = images.photo(mode=mode)
    sent = decode(read(image))
    np.testing.assert_array_equal(np.asarray(sent), np.asarray(image.convert("RGB")))


def test_a_pillow_image_keeps_its_orientation() -> None:
    image = images.photo(60, 40)
    image.getexif()[0x0112] = 6
    assert decode(read(image)).size == (40, 60)


def test_an_array_loses_nothing() -> None:
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
def test_an_array_that_is_no_picture_is_refused(array: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(InvalidImage, match=r"give uint8 \[height, width, 3\]"):
        read(array)


def test_a_url_is_downloaded(website: str) -> None:
    assert read(f"{website}/cat.jpg") == SAMPLE.read_bytes()


@pytest.mark.parametrize("url", ["{website}/dog.jpg", "http://127.0.0.1:9/cat.jpg"])
def test_a_url_that_gives_nothing_is_refused(website: str, url: str) -> None:
    url = url.format(website=website)
    with pytest.raises(InvalidImage, match="cannot be downloaded") as caught:
        read(url)
    assert caught.value.source == url


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidImage, match="No such file") as caught:
        read("nowhere.jpg")
    assert caught.value.source == "nowhere.jpg"


def test_every_source_has_a_name() -> None:
    assert name_of(Path("cat.jpg")) == "cat.jpg"
    assert name_of(b"abc") == "3 bytes"
    assert name_of(np.zeros((4, 5, 3), np.uint8)) == "array 4 x 5 x 3"
    assert name_of(Image.new("RGB", (5, 4))) == "image 5 x 4"
    assert name_of(Image.open(SAMPLE)) == str(SAMPLE)
