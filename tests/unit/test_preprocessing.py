"""The code of the preprocessing step, without Triton."""

import base64
import io
import math
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from client import SAMPLE
from scripts.repository.steps.preprocess import base64_text, fitting, resizing
from scripts.repository.steps.preprocess.base64_text import file_content
from scripts.repository.steps.preprocess.imaging import ImageError, decode, load
from scripts.repository.steps.preprocess.limits import Limits
from scripts.repository.steps.preprocess.recipe import Recipe, square
from tests import bombs, images, reference
from tests.conftest import ROOT
from tests.fuzz import mutations, oracle

ORIENTATIONS = range(1, 9)


def levels(data: bytes, recipe: Recipe) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Preprocess one image to grey levels [crop, crop, 3]."""
    return np.asarray(load(data, recipe)).astype(np.int64)


def assert_same_pixels(ours: bytes, theirs: bytes) -> None:
    np.testing.assert_array_equal(np.asarray(decode(ours)), np.asarray(decode(theirs)))


@pytest.mark.parametrize("size", [(451, 300), (300, 451), (256, 256), (97, 1000), (33, 21)])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (224, 224), (342, 299)])
def test_pixels_equal_the_zoo_reference(size: tuple[int, int], resize: int, crop: int) -> None:
    data = images.encode(images.photo(*size))
    difference = levels(data, square(resize, crop)) - reference.levels(data, resize, crop)
    # Both round after each of two passes, not at the same values.
    assert np.abs(difference).max() <= 2
    assert np.abs(difference).mean() < 0.25
    assert abs(difference.mean()) < 0.02


@pytest.mark.parametrize("recipe", [square(256, 224), square(224, 224), square(33, 32)])
def test_images_of_any_size_are_resized_like_pillow_does(recipe: Recipe) -> None:
    rng = np.random.default_rng(0)
    assert resizing.IS_FAST
    for width, height in rng.integers(1, 900, (100, 2)).tolist():
        noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        decoded = fitting.Decoded(noise, (height, width), (height, width))
        ways = (resizing.resize, resizing.with_pillow)
        both = [fitting.picture(decoded, recipe, way) for way in ways]
        ours, pillows = (np.asarray(image).astype(np.int64) for image in both)
        assert np.abs(ours - pillows).max() <= 2


# Scales and places at which centres of resized pixels lie on those of source pixels.
RESIZE_AT_WHOLE_PIXELS = """
import itertools, sys
from PIL import Image
from scripts.repository.steps.preprocess import resizing
scales = sorted({above / below for above in range(1, 7) for below in range(1, 7)})
for scale, column in itertools.product(scales, range(0, 60, 7)):
    part = Image.new("RGB", (round(160 / scale), round(66 / scale)))
    box = (column / scale, 0, column / scale + 96 / scale, 64 / scale)
    assert resizing.resize(part, (64, 96), box, sys.argv[1]).size == (96, 64)
"""


@pytest.mark.parametrize("interpolation", resizing.SIMD_FILTERS)
def test_no_filter_ends_the_process(interpolation: str) -> None:
    command = [sys.executable, "-c", RESIZE_AT_WHOLE_PIXELS, interpolation]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_pillow_resizes_if_cykooz_resizer_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resizing, "IS_FAST", False)
    photo = images.photo()
    size = photo.height, photo.width
    plain = fitting.picture(fitting.Decoded(photo, size, size), Recipe(), resizing.with_pillow)
    np.testing.assert_array_equal(levels(images.encode(photo), Recipe()), np.asarray(plain))


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


TRANSPARENT_COLOURS = {
    "grey of 1 bit": (bombs.GREY, 1, b"\xa0", struct.pack(">H", 0), [255, 255, 255]),
    "grey of 2 bits": (bombs.GREY, 2, b"\x18", struct.pack(">H", 1), [0, 255, 170]),
    "grey of 4 bits": (bombs.GREY, 4, b"\x05\xa0", struct.pack(">H", 5), [0, 255, 170]),
    "grey of 8 bits": (bombs.GREY, 8, b"\0\x50\xa0", struct.pack(">H", 0x50), [0, 255, 160]),
    "grey of 16 bits": (
        bombs.GREY,
        16,
        struct.pack(">3H", 0x0001, 0x0002, 0x8000),
        struct.pack(">H", 0x0001),
        [255, 0, 128],
    ),
    "RGB of 8 bits": (
        bombs.RGB,
        8,
        b"\1\2\3\1\2\4\0\0\0",
        struct.pack(">3H", 1, 2, 3),
        [255, 1, 0],
    ),
    "RGB of 16 bits": (
        bombs.RGB,
        16,
        struct.pack(">9H", 7, 7, 7, 7, 7, 8, 0x0700, 0x0700, 0x0700),
        struct.pack(">3H", 7, 7, 7),
        [255, 0, 7],
    ),
}


@pytest.mark.parametrize("name", TRANSPARENT_COLOURS)
def test_transparent_colour_of_any_depth_becomes_white(name: str) -> None:
    colour_type, depth, row, colour, expected = TRANSPARENT_COLOURS[name]
    data = bombs.png(
        3, 1, colour_type, depth=depth, chunks=bombs.chunk(b"tRNS", colour), rows=[row]
    )
    assert np.asarray(decode(data))[0, :, 0].tolist() == expected


ALPHA_MASK = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)


@pytest.mark.parametrize(
    ("alphas", "expected"), [((0, 0), (10, 10)), ((0, 255), (255, 10)), ((255, 255), (10, 10))]
)
@pytest.mark.parametrize("header", [56, 108, 124])
def test_bmp_is_opaque_if_its_alpha_is_zero_everywhere(
    header: int, alphas: tuple[int, int], expected: tuple[int, int]
) -> None:
    pixels = b"".join(bytes([30, 20, 10, alpha]) for alpha in alphas)
    start = 14 + header
    head = struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", header, 2, 1, 1, 32, 3, len(pixels), 0, 0, 0, 0)
    data = head + (info + ALPHA_MASK).ljust(header, b"\0") + pixels
    assert tuple(np.asarray(decode(data))[0, :, 0]) == expected


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


ENDS: dict[str, tuple[str, dict[str, Any], int]] = {
    "JPEG without its end marker": ("JPEG", {}, 2),
    "JPEG with half an end marker": ("JPEG", {}, 1),
    "progressive JPEG without its end marker": ("JPEG", {"progressive": True}, 2),
    "PNG without its end chunk": ("PNG", {}, 12),
    "PNG without the checksum of its pixels": ("PNG", {}, 12 + 4 + 4),
    "GIF without its trailer": ("GIF", {}, 2),
    "GIF without its end code": ("GIF", {}, 3),
    "WebP with half of its EXIF data": ("WEBP", {"exif": bombs.exif(1)}, 10),
    "WebP without its last byte of padding": ("WEBP", {"lossless": True}, 1),
    "BMP without its last byte of padding": ("BMP", {}, 1),
}


@pytest.mark.parametrize("name", ENDS)
def test_file_is_decoded_if_only_its_end_is_missing(name: str) -> None:
    file_format, options, missing = ENDS[name]
    whole = images.encode(images.photo(301, 200), file_format, **options)
    assert_same_pixels(whole[:-missing], whole)


@pytest.mark.parametrize("missing", [20, 100, 1000])
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_jpeg_that_was_cut_is_refused_whether_or_not_it_has_an_end_marker(
    options: dict[str, bool], missing: int
) -> None:
    cut = images.encode(images.photo(), "JPEG", **options)[:-missing]
    with pytest.raises(ImageError, match="the file ends before the picture is complete"):
        decode(cut)
    if not options and missing == 1000:  # the grey rows that libjpeg adds are recognized
        with pytest.raises(ImageError, match="the file ends before the picture is complete"):
            decode(cut + b"\xff\xd9")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_complete_jpeg_that_ends_in_grey_is_decoded(mode: str) -> None:
    image = Image.new(mode, (64, 64), "red" if mode == "RGB" else 9)
    image.paste((128,) * 3 if mode == "RGB" else 128, (0, 32, 64, 64))
    assert decode(images.encode(image, "JPEG", quality=95)).getpixel((5, 60)) == (128, 128, 128)


@pytest.mark.parametrize("file_format", images.FORMATS)
def test_bytes_after_the_image_are_ignored(file_format: str) -> None:
    whole = images.encode(images.photo(), file_format)
    assert_same_pixels(whole + b"more" * 100, whole)


@pytest.mark.parametrize("size", [0, 100, 0xFFFFFFFF])
def test_wrong_size_in_a_webp_header_is_ignored(size: int) -> None:
    whole = images.encode(images.photo(), "WEBP")
    assert_same_pixels(whole[:4] + struct.pack("<I", size) + whole[8:], whole)


METADATA: dict[str, dict[str, Any]] = {
    "ICC profile of 2 MB": {"icc_profile": np.random.default_rng(0).bytes(2_000_000)},
    "text of 2 MB": {"pnginfo": images.png_text(2_000_000)},
}


@pytest.mark.parametrize("name", METADATA)
def test_png_with_much_metadata_is_decoded(name: str) -> None:
    data = images.encode(images.photo(), "PNG", **METADATA[name])
    assert_same_pixels(data, images.encode(images.photo()))


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def _oriented(place: str) -> bytes:
    """Return an image of 60 x 40 pixels whose orientation, 6, is in one of the places for it."""
    photo, text = images.photo(60, 40), PngInfo()
    profile = "\nexif\n      32\n" + (b"Exif\0\0" + bombs.exif(6)).hex() + "\n"
    text.add_text("Raw profile type exif", profile, zip=place == "compressed PNG text")
    if place == "EXIF, big-endian":
        exif = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
        return images.encode(photo, "JPEG", exif=b"Exif\0\0" + exif)
    if place.endswith("PNG text"):
        return images.encode(photo, "PNG", pnginfo=text)
    file_format, kind = place.split()
    content = XMP if kind == "XMP" else b"Exif\0\0" + bombs.exif(6)
    return images.encode(photo, file_format, **{kind.lower(): content})


PLACES = (
    "JPEG EXIF",
    "PNG EXIF",
    "WEBP EXIF",
    "JPEG XMP",
    "WEBP XMP",
    "EXIF, big-endian",
    "plain PNG text",
    "compressed PNG text",
)


@pytest.mark.parametrize("place", PLACES)
def test_orientation_is_found_wherever_programs_write_it(place: str) -> None:
    data = _oriented(place)
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6  # Pillow finds it, too
    assert decode(data).size == (40, 60)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("mode", ["RGB", "P"])
@pytest.mark.parametrize("size", [(1601, 1203), (601, 399)])
def test_turned_image_is_cropped_like_an_upright_one(
    size: tuple[int, int], mode: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = images.photo(*size, mode=mode)
    options = {"compress_level": 1}
    turned = images.encode(_stored_as(upright, orientation), "PNG", exif=exif, **options)
    plain = images.encode(upright.convert("RGB"), "PNG", **options)
    difference = np.abs(levels(turned, Recipe()) - levels(plain, Recipe()))
    assert difference.max() <= (2 if mode == "RGB" or size[0] < 1024 else 6)
    assert difference.mean() < 1


def test_exif_orientation_of_16_bit_greyscale_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.asarray(images.photo(60, 40, mode="L")).astype(np.uint16) * 256)
    assert decode(images.encode(deep, exif=exif)).size == (40, 60)


def test_changed_files_are_classified_or_refused() -> None:
    rng = random.Random(0)  # noqa: S311 - the test must be repeatable
    seeds = mutations.seeds()
    assert all(oracle.check(data) for data in seeds.values())
    changed = [mutations.mutated(data, rng) for data in list(seeds.values()) * 150]
    accepted = sum(map(oracle.check, changed))
    assert 0.1 < accepted / len(changed) < 0.9  # both outcomes are common


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
        ({"resize": (200, 200)}, "does not fit"),
        ({"crop": (0, 224)}, "sides from 1 to 4096"),
        ({"std": (0.2, 0.0, 0.2)}, "std must be positive"),
        ({"fill": (0, 0, 256)}, "fill must be three grey levels from 0 to 255"),
    ],
)
def test_invalid_recipe_is_rejected(numbers: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**numbers)  # type: ignore[arg-type]


def test_recipe_is_read_back_from_its_json() -> None:
    recipe = square(300, 299, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_recipe_of_an_older_release_is_read() -> None:
    text = '{"resize": 256, "crop": 224, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}'
    assert Recipe.from_json(text) == square(256, 224, mean=(0.5,) * 3, std=(0.2,) * 3)
