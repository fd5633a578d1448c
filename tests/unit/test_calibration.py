"""Folders of calibration images: what is taken, held out, left out and refused."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from scripts.repository import calibration
from scripts.repository.errors import BuildError
from scripts.repository.steps.preprocess.imaging import load
from scripts.repository.steps.preprocess.recipe import Recipe
from tests.images import BROKEN, encode, fill, noise


def test_images_in_folders_below_are_found_in_the_order_of_their_paths(tmp_path: Path) -> None:
    fill(tmp_path / "b", 1)
    fill(tmp_path / "a" / "deep", 1)
    (tmp_path / "c.JPG").write_bytes(encode(noise(40, 40, seed=9), "JPEG"))
    images = calibration.read(tmp_path)
    found = [str(file.relative_to(tmp_path)) for file in images.calibrate]
    assert found == ["a/deep/000.png", "b/000.png", "c.JPG"]


def test_other_files_are_passed_over_in_silence(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    (tmp_path / "labels.json").write_text("{}")
    (tmp_path / "album.png").mkdir()
    images = calibration.read(tmp_path)
    assert (len(images.calibrate), images.unreadable) == (2, ())


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_image_is_left_out_and_told_of_in_one_line(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path, 2)
    (tmp_path / "broken.jpg").write_bytes(content)
    images = calibration.read(tmp_path)
    assert len(images.calibrate) == 2
    (complaint,) = images.unreadable
    assert complaint.startswith(f"{tmp_path / 'broken.jpg'}: ")
    assert "\n" not in complaint


def test_every_fifth_of_a_hundred_images_is_held_out(tmp_path: Path) -> None:
    images = calibration.read(fill(tmp_path, 100))
    assert images.held_out
    assert (len(images.calibrate), len(images.compare)) == (80, 20)
    assert set(images.calibrate).isdisjoint(images.compare)


@pytest.mark.parametrize("count", [1, 99])
def test_fewer_images_are_all_calibrated_and_compared_on(tmp_path: Path, count: int) -> None:
    images = calibration.read(fill(tmp_path, count))
    assert not images.held_out
    assert images.calibrate == images.compare
    assert len(images.calibrate) == count


def test_of_very_many_images_evenly_spaced_ones_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "MOST", 4)
    images = calibration.read(fill(tmp_path, 9))
    assert [file.stem for file in images.calibrate] == ["000", "003", "006"]


def test_the_sha256_is_over_the_images_that_are_calibrated_on(tmp_path: Path) -> None:
    images = calibration.read(fill(tmp_path / "pictures", 3))
    digests = [hashlib.sha256(file.read_bytes()).digest() for file in images.calibrate]
    assert images.sha256 == hashlib.sha256(b"".join(digests)).hexdigest()
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    assert calibration.read(tmp_path / "elsewhere").sha256 == images.sha256


@pytest.mark.parametrize("content", [None, b"this is no image"])
def test_a_folder_without_a_readable_image_is_refused_with_what_to_do(
    tmp_path: Path, content: bytes | None
) -> None:
    if content:
        (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(BuildError, match=r"no image that can be read; take 100 or more") as caught:
        calibration.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_progress_counts_to_the_last_image(tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    fill(tmp_path, 3)
    calibration.read(tmp_path, progress=lambda done, total: reports.append((done, total)))
    assert reports == [(1, 3), (2, 3), (3, 3)]


def test_an_image_becomes_what_the_preprocessing_step_makes_of_it(tmp_path: Path) -> None:
    recipe = Recipe(resize=37, crop=32)
    images = calibration.read(fill(tmp_path, 1))
    (tensor,) = calibration.pixels(images.calibrate, recipe)
    pixels = np.asarray(load(images.calibrate[0].read_bytes(), recipe), np.float64) / 255
    expected = ((pixels - recipe.mean) / recipe.std).transpose(2, 0, 1)[None]
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor, expected, atol=1e-6)
