"""The code of the preprocessing step, without Triton."""

import base64
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from client import SAMPLE
from scripts.repository.steps.preprocess import base64_text, resizing
from scripts.repository.steps.preprocess.base64_text import file_content
from scripts.repository.steps.preprocess.imaging import ImageError, decode, kept, load
from scripts.repository.steps.preprocess.limits import Limits
from scripts.repository.steps.preprocess.recipe import Recipe
from tests import images, reference

ORIENTATIONS = range(1, 9)


def levels(data: bytes, recipe: Recipe) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Preprocess one image to grey levels [crop, crop, 3]."""
    return np.asarray(load(data, recipe)).astype(np.int64)


@pytest.mark.parametrize("size", [(451, 300), (300, 451), (256, 256), (97, 1000), (33, 21)])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (224, 224), (342, 299)])
def test_pixels_equal_the_zoo_reference(size: tuple[int, int], resize: int, crop: int) -> None:
    data = images.encode(images.photo(*size))
    difference = levels(data, Recipe(resize, crop)) - reference.levels(data, resize, crop)
    # Both round after each of two passes, not at the same values.
    assert np.abs(difference).max() <= 2
    assert np.abs(difference).mean() < 0.25
    assert abs(difference.mean()) < 0.02


@pytest.mark.parametrize("recipe", [Recipe(256, 224), Recipe(224, 224), Recipe(33, 32)])
def test_images_of_any_size_are_resized_like_pillow_does(recipe: Recipe) -> None:
    rng = np.random.default_rng(0)
    assert resizing.IS_FAST
    for width, height in rng.integers(1, 900, (100, 2)).tolist():
        noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        box = kept((0, 0, width, height), recipe)
        both = [way(noise, recipe.crop, box) for way in (resizing.resize, resizing.with_pillow)]
        ours, pillows = (np.asarray(image).astype(np.int64) for image in both)
        assert np.abs(ours - pillows).max() <= 2


def test_pillow_resizes_if_cykooz_resizer_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resizing, "IS_FAST", False)
    photo = images.photo()
    box = kept((0, 0, *photo.size), Recipe())
    resized = np.asarray(resizing.with_pillow(photo, 224, box))
    np.testing.assert_array_equal(levels(images.encode(photo), Recipe()), resized)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("size", [(1600, 1200), (1029, 1025), (1030, 2999)])
def test_large_jpeg_is_decoded_at_a_reduced_size_with_the_same_result(
    size: tuple[int, int], orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = images.encode(images.photo(*size), "JPEG", quality=90, exif=exif)
    upright = images.encode(decode(data), "PNG", compress_level=1)
    difference = levels(data, Recipe()) - reference.levels(upright)
    assert difference.any()
    assert np.abs(difference).max() <= 6
    assert np.abs(difference).mean() < 0.5


@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket"])
def test_photograph_of_12_megapixels_gets_the_class_of_the_zoo_reference(
    shared_assets: Path, name: str
) -> None:
    photo = Image.open(shared_assets / "photos" / f"{name}.jpg")
    scale = math.sqrt(12e6 / (photo.width * photo.height))
    large = photo.resize((round(photo.width * scale), round(photo.height * scale)))
    data = images.encode(large, "JPEG", quality=90)
    session = onnxruntime.InferenceSession(shared_assets / "squeezenet1.1.onnx")
    both = [reference.levels(data), levels(data, Recipe())]
    ours, theirs = reference.logits(session, [reference.normalized(each) for each in both])
    assert ours.argmax() == theirs.argmax()


def test_jpeg_of_less_than_four_times_the_resized_size_is_decoded_in_full() -> None:
    photo = images.photo(1600, 1023)
    data = images.encode(photo, "JPEG", quality=90)
    plain = images.encode(decode(data), "PNG", compress_level=1)
    np.testing.assert_array_equal(levels(data, Recipe()), levels(plain, Recipe()))


@pytest.mark.parametrize("file_format", images.FORMATS)
def test_every_supported_format_is_decoded(file_format: str) -> None:
    image = decode(images.encode(images.photo(), file_format))
    assert (image.mode, image.size) == ("RGB", (451, 300))


def test_unsupported_format_is_rejected() -> None:
    with pytest.raises(ImageError, match="send JPEG, PNG, WEBP, BMP or GIF"):
        decode(images.encode(images.photo(), "TIFF"))


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA", "RGBA"])
def test_every_mode_is_converted_to_the_same_rgb_picture(mode: str) -> None:
    image = images.photo(mode=mode)
    data = images.encode(image, "JPEG" if mode == "CMYK" else "PNG", quality=95)
    expected = np.asarray(image.convert("RGB"), dtype=int)
    assert np.abs(np.asarray(decode(data), dtype=int) - expected).mean() < 2


def test_16_bit_greyscale_is_scaled_and_not_clipped() -> None:
    grey = np.asarray(images.photo(mode="L"))
    deep = Image.fromarray(grey.astype(np.uint16) * 256 + 7)
    assert deep.mode == "I;16"
    decoded = np.asarray(decode(images.encode(deep)))
    np.testing.assert_array_equal(decoded, np.repeat(grey[:, :, None], 3, axis=2))


def test_transparent_pixels_are_blended_with_white() -> None:
    image = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    assert decode(images.encode(image)).getpixel((5, 5)) == (255, 255, 255)


def test_transparent_palette_colour_is_blended_with_white() -> None:
    image = Image.new("P", (40, 40), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    data = images.encode(image, "GIF", transparency=0)
    assert decode(data).getpixel((5, 5)) == (255, 255, 255)


def test_first_frame_of_an_animation_is_used() -> None:
    frames = [Image.new("RGB", (50, 40), colour) for colour in ("red", "blue")]
    data = images.encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data).getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = images.photo(60, 40)
    data = images.encode(_stored_as(upright, orientation), "PNG", exif=exif)
    np.testing.assert_array_equal(np.asarray(decode(data)), np.asarray(upright))


def _stored_as(upright: Image.Image, orientation: int) -> Image.Image:
    """Return the stored picture that Pillow's exif_transpose turns upright again."""
    transposes = Image.Transpose
    inverse = {
        2: transposes.FLIP_LEFT_RIGHT,
        3: transposes.ROTATE_180,
        4: transposes.FLIP_TOP_BOTTOM,
        5: transposes.TRANSPOSE,
        6: transposes.ROTATE_90,
        7: transposes.TRANSVERSE,
        8: transposes.ROTATE_270,
    }
    return upright.transpose(inverse[orientation]) if orientation in inverse else upright


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_image_with_broken_exif_data_is_decoded() -> None:
    data = images.encode(images.photo(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert decode(data).size == (451, 300)


@pytest.mark.parametrize("data", images.BROKEN.values(), ids=images.BROKEN)
def test_broken_file_is_rejected(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode(data)


@pytest.mark.parametrize("file_format", images.FORMATS)
def test_truncated_file_is_rejected(file_format: str) -> None:
    whole = images.encode(images.photo(), file_format)
    with pytest.raises(ImageError, match=r"broken image|not an image"):
        decode(whole[: len(whole) // 2])


def test_exif_orientation_of_16_bit_greyscale_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.asarray(images.photo(60, 40, mode="L")).astype(np.uint16) * 256)
    assert decode(images.encode(deep, exif=exif)).size == (40, 60)


def test_random_damage_raises_no_other_error_than_image_error() -> None:
    rng = np.random.default_rng(0)
    for file_format in images.FORMATS:
        whole = np.frombuffer(images.encode(images.photo(80, 60), file_format), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            places = rng.integers(0, len(whole), 8)
            damaged[places] = rng.integers(0, 256, 8)
            try:
                decode(damaged.tobytes())
            except ImageError:
                continue


def test_image_with_too_many_pixels_is_rejected_before_decoding() -> None:
    data = images.encode(Image.new("1", (20_000, 20_000)))
    assert len(data) < 100_000
    with pytest.raises(ImageError, match=f"the limit is {Limits().max_pixels} pixels"):
        decode(data)


def test_strip_one_pixel_high_does_not_take_gigabytes() -> None:
    strip = Image.new("RGB", (50_000, 1), "red")
    assert load(images.encode(strip), Recipe()).size == (224, 224)


def encodings(data: bytes) -> dict[str, bytes]:
    """The ways to write a file as base64 that are accepted."""
    text = base64.b64encode(data)
    return {
        "standard": text,
        "URL-safe": base64.urlsafe_b64encode(data),
        "no padding": text.rstrip(b"="),
        "line breaks": b"\r\n" + base64.encodebytes(data),
        "data URL": b"data:image/jpeg;base64," + text,
        "data URL with a parameter": b"DATA:image/svg+xml;charset=utf-8;BASE64," + text,
    }


@pytest.mark.parametrize("encoding", encodings(b""))
@pytest.mark.parametrize("file_format", images.FORMATS)
def test_base64_of_every_supported_format_is_decoded(file_format: str, encoding: str) -> None:
    for width in (40, 41, 42):  # files of lengths that need different padding
        data = images.encode(images.photo(width, 30), file_format)
        assert file_content(encodings(data)[encoding]) == data


@pytest.mark.parametrize("file_format", images.FORMATS)
def test_image_file_is_not_taken_for_base64(file_format: str) -> None:
    data = images.encode(images.photo(), file_format)
    assert file_content(data) is data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"/9j/4AA?", "invalid base64"),
        (b"/9j/4", "invalid base64"),
        (b"Qk=k", "invalid base64: padding before the end"),
        (b"iVBOR\xc3\xbf", "invalid base64"),
        (b"data:image/png;base64,/9j/?", "invalid base64"),
        (b"data:image/png,/9j/", "a data URL must start with data:image/...;base64,"),
        (b"data:text/plain;base64,/9j/", "a data URL must start with data:image/...;base64,"),
        (b"data:image/png" + b";" * 1000 + b"base64,", "a data URL must start with"),
        (b"data:", "a data URL must start with"),
    ],
)
def test_invalid_base64_is_one_clear_line(text: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        file_content(text)
    assert "\n" not in str(caught.value)


def test_base64_is_bounded_before_it_is_decoded() -> None:
    text = b"/9j/" + bytes(base64_text.MAX_CHARACTERS)  # not valid, which decoding would find
    with pytest.raises(ImageError, match="at most 67108864 are decoded, send larger files"):
        file_content(text)


@pytest.mark.parametrize(
    "data", [b"this is no image", SAMPLE.read_bytes().decode("latin1").encode()]
)
def test_error_for_other_text_says_how_to_send_an_image_in_json(data: bytes) -> None:
    with pytest.raises(ImageError, match="send JPEG, PNG, WEBP, BMP or GIF, in JSON as base64"):
        decode(file_content(data))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"resize": 200, "crop": 224}, "does not fit"),
        ({"crop": 0}, "the minimum is 1"),
        ({"std": (0.2, 0.0, 0.2)}, "std must be positive"),
    ],
)
def test_invalid_recipe_is_rejected(numbers: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**numbers)  # type: ignore[arg-type]


def test_recipe_is_read_back_from_its_json() -> None:
    recipe = Recipe(300, 299, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert Recipe.from_json(recipe.to_json()) == recipe
