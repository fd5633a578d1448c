"""Folders of calibration images: which files are used, held out, skipped and rejected."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.repository import calibration
from scripts.repository.errors import BuildError
from scripts.repository.steps.preprocess.imaging import load
from scripts.repository.steps.preprocess.recipe import square
from tests.images import BROKEN, encode, fill, noise


def test_subfolders_are_searched_and_images_are_sorted_by_path(tmp_path: Path) -> None:
    fill(tmp_path / "b", 1)
    fill(tmp_path / "a" / "deep", 1)
    (tmp_path / "c.JPG").write_bytes(encode(noise(40, 40, seed=9), "JPEG"))
    images = calibration.read(tmp_path)
    found = [str(file.relative_to(tmp_path)) for file in images.calibrate]
    assert found == ["a/deep/000.png", "b/000.png", "c.JPG"]


def test_files_that_are_not_images_are_ignored(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    (tmp_path / "labels.json").write_text("{}")
    (tmp_path / "album.png").mkdir()
    images = calibration.read(tmp_path)
    assert (len(images.calibrate), images.unreadable) == (2, ())


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_image_is_skipped_with_a_one_line_reason(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path, 2)
    (tmp_path / "broken.jpg").write_bytes(content)
    images = calibration.read(tmp_path)
    assert len(images.calibrate) == 2
    (reason,) = images.unreadable
    assert reason.startswith(f"{tmp_path / 'broken.jpg'}: ")
    assert "\n" not in reason


def test_every_fifth_of_a_hundred_images_is_held_out(tmp_path: Path) -> None:
    images = calibration.read(fill(tmp_path, 100))
    assert images.held_out
    assert (len(images.calibrate), len(images.compare)) == (80, 20)
    assert set(images.calibrate).isdisjoint(images.compare)
    assert images.all == tuple(sorted(tmp_path.iterdir()))
    assert images.sha256 != images.all_sha256


@pytest.mark.parametrize("count", [1, 99])
def test_fewer_images_are_used_for_both_calibration_and_comparison(
    tmp_path: Path, count: int
) -> None:
    images = calibration.read(fill(tmp_path, count))
    assert not images.held_out
    assert images.calibrate == images.compare
    assert len(images.calibrate) == count


def test_evenly_spaced_images_are_used_if_there_are_very_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "MAX_IMAGES", 4)
    images = calibration.read(fill(tmp_path, 9))
    assert [file.stem for file in images.calibrate] == ["000", "003", "006"]


def test_the_sha256_covers_the_calibration_images(tmp_path: Path) -> None:
    images = calibration.read(fill(tmp_path / "pictures", 3))
    digests = [hashlib.sha256(file.read_bytes()).digest() for file in images.calibrate]
    assert images.sha256 == images.all_sha256 == hashlib.sha256(b"".join(digests)).hexdigest()
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    assert calibration.read(tmp_path / "elsewhere").sha256 == images.sha256


@pytest.mark.parametrize("content", [None, b"this is not an image"])
def test_a_folder_without_a_readable_image_is_rejected(
    tmp_path: Path, content: bytes | None
) -> None:
    if content:
        (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(
        BuildError, match="no image that can be read; at least 100 are recommended"
    ) as caught:
        calibration.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_progress_is_reported_for_each_image(tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    fill(tmp_path, 3)
    calibration.read(tmp_path, progress=lambda done, total: reports.append((done, total)))
    assert reports == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("colour", ["rgb", "grey"])
def test_calibration_decodes_exactly_whatever_the_recipe_says(tmp_path: Path, colour: str) -> None:
    recipe = square(37, 32, colour=colour, mean=(0.5,), std=(0.5,))
    images = calibration.read(fill(tmp_path, 2))
    all_pixels = calibration.pixels(images.compare, recipe)
    for file, pixels in zip(images.compare, all_pixels, strict=True):
        expected = np.asarray(load(file.read_bytes(), replace(recipe, decoding="exact")))
        assert pixels.shape == (1, 32, 32, recipe.channels)
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels.reshape(expected.shape), expected)


def test_image_that_cannot_be_decoded_exactly_is_named(tmp_path: Path) -> None:
    file = tmp_path / "strip.png"
    file.write_bytes(encode(Image.new("L", (2, 60_000))))
    assert calibration.read(tmp_path).compare == (file,)
    with pytest.raises(BuildError, match=r"strip.png: .*; or remove it from the folder$"):
        list(calibration.pixels([file], square(256, 224)))
