"""What the decoding of one image takes: memory and seconds, with all decoding processes busy."""

import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from client import SAMPLE
from scripts.embedded.installation import GLIBC_TUNABLES
from scripts.repository.steps.preprocess import sharing
from scripts.repository.steps.preprocess.imaging import Busy, ImageError, load
from scripts.repository.steps.preprocess.limits import MIB, Limits
from scripts.repository.steps.preprocess.recipe import Recipe, square
from tests import bombs, images
from tests.conftest import ROOT

MAX_MEMORY = 1024 * MIB  # above idle, of all processes of a server
MAX_SECONDS = 8  # on a machine half as fast as that of the estimates
PROCESSES = 3  # that decode on two cores
MOST_PROCESSES = 16

DEFAULT = Recipe()
EXACT = square(256, 224, decoding="exact", interpolation="lanczos")
SQUASH = square(256, 224, mode="squash", interpolation="lanczos")

# Reads names of files, and prints the outcome and the processor time of each.
DECODER = """
import sys, time
from pathlib import Path
from scripts.repository.steps.preprocess.imaging import Busy, ImageError, load_crops
from scripts.repository.steps.preprocess.recipe import Recipe
recipe, crops = Recipe.from_json(sys.argv[2]), int(sys.argv[3])
load_crops(Path(sys.argv[1]).read_bytes(), recipe, crops)
print("ready", flush=True)
for name in sys.stdin:
    data = Path(name.strip()).read_bytes()
    start = time.process_time()
    try:
        outcome = load_crops(data, recipe, crops)[0].mode
    except (ImageError, Busy) as error:
        outcome = type(error).__name__
    del data
    print(outcome, time.process_time() - start, flush=True)
"""


class Decoder:
    """A process that decodes images, with the server's settings of glibc."""

    def __init__(self, folder: Path, recipe: Recipe, crops: int) -> None:
        small = str(folder / "small")
        self.process = subprocess.Popen(
            [sys.executable, "-c", DECODER, small, recipe.to_json(), str(crops)],
            cwd=ROOT,
            env={**os.environ, "GLIBC_TUNABLES": GLIBC_TUNABLES, "TMPDIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def decode(self, file: Path) -> tuple[str, float]:
        """Return the outcome and the seconds of processor time."""
        assert self.process.stdin
        self.process.stdin.write(f"{file}\n")
        self.process.stdin.flush()
        outcome, seconds = self.read().split()
        return outcome, float(seconds)

    def memory(self) -> int:
        """Return the resident bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        self.process.communicate()


@dataclass(frozen=True)
class Burden:
    """What decoding took.

    Attributes:
        outcomes: the mode of the result, or the name of the exception, for each process.
        seconds: the processor time of the process that took longest.
        peak: bytes above idle in all processes, while they decode.
        rest: bytes above idle in all processes, after they have decoded.
    """

    outcomes: list[str]
    seconds: float
    peak: int
    rest: int


class Server:
    """Decoding processes with the same parent, as Triton has them."""

    def __init__(
        self, folder: Path, processes: int, recipe: Recipe = DEFAULT, crops: int = 1
    ) -> None:
        (folder / "small").write_bytes(images.encode(images.photo(), "JPEG"))
        self.decoders = [Decoder(folder, recipe, crops) for _ in range(processes)]
        assert [decoder.read() for decoder in self.decoders] == ["ready"] * processes
        self.idle = self.memory()

    def memory(self) -> int:
        return sum(decoder.memory() for decoder in self.decoders)

    def decode(self, files: list[Path]) -> Burden:
        """Decode each file in a process of its own, all at the same time."""
        peak = 0
        with ThreadPoolExecutor(len(files)) as threads:
            results = [
                threads.submit(decoder.decode, file)
                for decoder, file in zip(self.decoders, files, strict=False)
            ]
            while not all(result.done() for result in results):
                peak = max(peak, self.memory())
                time.sleep(0.005)
        outcomes, seconds = zip(*(result.result() for result in results), strict=True)
        return Burden(list(outcomes), max(seconds), peak - self.idle, self.memory() - self.idle)

    def stop(self) -> None:
        for decoder in self.decoders:
            decoder.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("decoders"), PROCESSES)
    yield server
    server.stop()


# Of each decoder; a server gets three of all at once in `make reliability`.
COSTLIEST = frozenset(
    [
        *("PNG, RGB of 16 bits, transparent", "PNG, RGBA, turned, interlaced"),
        *("WebP, lossless", "GIF, transparent", "BMP of run lengths", "JPEG, progressive"),
    ]
)


@pytest.mark.parametrize("name", bombs.BOMBS)
def test_all_processes_decode_the_largest_images_within_the_budget(
    server: Server, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "bomb"
    file.write_bytes(bombs.BOMBS[name]())
    burden = server.decode([file] * (PROCESSES if name in COSTLIEST else 1))
    assert "RGB" in burden.outcomes  # it is within the limits
    assert set(burden.outcomes) <= {"RGB", "Busy"}
    assert sharing.MAX_WAIT_SECONDS + burden.seconds < MAX_SECONDS
    assert burden.peak < MAX_MEMORY
    assert burden.rest < 150 * MIB


# About as large as the limits allow with the recipe and the number of crops.
OTHER_BOMBS: dict[str, tuple[Recipe, int, Callable[[], bytes]]] = {
    "exact, JPEG, turned": (EXACT, 1, lambda: bombs.jpeg(8_000, 8_000, orientation=6)),
    "exact, wide": (EXACT, 1, lambda: bombs.png(60_000, 20, bombs.RGB)),
    "exact, tall": (EXACT, 1, lambda: bombs.png(12, 8_000, bombs.RGB)),
    "squash, CMYK, turned": (
        SQUASH,
        1,
        lambda: bombs.jpeg(65_500, 1_023, components=4, orientation=6),
    ),
    "ten crops, exact, wide": (EXACT, 10, lambda: bombs.png(60_000, 200, bombs.RGB)),
}


@pytest.mark.parametrize("name", OTHER_BOMBS)
def test_the_budget_holds_for_other_recipes(tmp_path: Path, name: str) -> None:
    recipe, crops, generate = OTHER_BOMBS[name]
    file = tmp_path / "bomb"
    file.write_bytes(generate())
    server = Server(tmp_path, PROCESSES, recipe, crops)
    try:
        burden = server.decode([file] * PROCESSES)
    finally:
        server.stop()
    assert "RGB" in burden.outcomes
    assert set(burden.outcomes) <= {"RGB", "Busy"}
    assert sharing.MAX_WAIT_SECONDS + burden.seconds < MAX_SECONDS
    assert burden.peak < MAX_MEMORY


def test_sixteen_processes_stay_within_the_budget(tmp_path: Path) -> None:
    large, small = tmp_path / "large", tmp_path / "medium"
    large.write_bytes(bombs.webp(5_400, 5_400))
    small.write_bytes(bombs.png(1_900, 1_900, bombs.RGBA))  # almost too large to be decoded freely
    server = Server(tmp_path, MOST_PROCESSES)
    try:
        burden = server.decode([large, small] * (MOST_PROCESSES // 2))
    finally:
        server.stop()
    assert burden.outcomes[1::2] == ["RGB"] * (MOST_PROCESSES // 2)
    assert "RGB" in burden.outcomes[::2]
    assert set(burden.outcomes[::2]) <= {"RGB", "Busy"}
    assert burden.peak < MAX_MEMORY


TOO_LARGE: dict[str, tuple[Callable[[], bytes], str]] = {
    "PNG of many pixels": (
        lambda: bombs.png(10_001, 10_000, bombs.GREY),
        "10001 x 10000 pixels; the limit is 100000000 pixels",
    ),
    "PNG turned by EXIF": (
        lambda: bombs.png(1, 65_536, bombs.RGBA, chunks=bombs.TURNED),
        "1 x 65536 pixels; the limit of a side is 65535 pixels",
    ),
    "PNG of 16 bits": (
        lambda: bombs.png(8_500, 8_500, bombs.RGBA, depth=16),
        "needs 2.6 s to decode; the limit is 2 s; send a smaller image",
    ),
    "WebP": (
        lambda: bombs.webp(10_000, 9_999),
        "needs 1527 MiB to decode; the limit is 448 MiB; send a smaller image, or a baseline JPEG",
    ),
    "WebP of the format's maximum": (
        lambda: bombs.webp(16_383, 16_383),
        "16383 x 16383 pixels; the limit is 100000000 pixels",
    ),
    "progressive JPEG": (lambda: bombs.jpeg(10_000, 9_999, scans=1), "MiB to decode"),
    "JPEG of many scans": (lambda: bombs.jpeg(4_000, 4_000, scans=4_000), "s to decode"),
    "BMP of run lengths": (lambda: bombs.rle_bmp(9_000, 9_000), "s to decode"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_image_beyond_the_limits_is_refused_at_once(name: str) -> None:
    generate, message = TOO_LARGE[name]
    data = generate()
    start = time.process_time()
    with pytest.raises(ImageError, match=message):
        load(data, Recipe())
    assert time.process_time() - start < 0.2


TOO_LARGE_IF_EXACT: dict[str, tuple[Callable[[], bytes], str]] = {
    "wide": (lambda: bombs.png(65_535, 1, bombs.RGB), "MiB to decode"),
    "tall": (lambda: bombs.png(10, 60_000, bombs.RGB), "MiB to decode"),
    "many pixels": (lambda: bombs.png(9_000, 9_000, bombs.RGB), "s to decode"),
}


@pytest.mark.parametrize("name", TOO_LARGE_IF_EXACT)
def test_image_that_takes_too_much_to_be_resized_as_a_whole_is_refused(name: str) -> None:
    generate, message = TOO_LARGE_IF_EXACT[name]
    data = generate()
    start = time.process_time()
    with pytest.raises(ImageError, match=message):
        load(data, EXACT)
    assert time.process_time() - start < 0.2
    assert load(data, DEFAULT).size == (224, 224)


def test_file_of_too_many_bytes_is_refused() -> None:
    limits = Limits(max_bytes=1000)
    with pytest.raises(ImageError, match="a file of 1001 bytes; the limit is 1000 bytes"):
        load(bytes(1001), Recipe(), limits)


ORDINARY = {
    "JPEG of 50 megapixels": lambda: images.encode(images.photo(8_660, 5_774), "JPEG"),
    "progressive JPEG of 24 megapixels": lambda: images.encode(
        images.photo(6_000, 4_000), "JPEG", progressive=True, subsampling=0
    ),
    "PNG of 24 megapixels": lambda: images.encode(images.photo(6_000, 4_000), compress_level=1),
    "WebP of 24 megapixels": lambda: images.encode(images.photo(6_000, 4_000), "WEBP", method=0),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_photograph_of_a_camera_is_within_the_limits(name: str) -> None:
    assert load(ORDINARY[name](), Recipe()).size == (224, 224)


# 4 GB, if each entry were read.
COPIES = bombs.exif_of_copies(entries=4_000, length=1 << 20)


# 256 KiB each.
INFLATING_TEXT = bombs.chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(1 << 18)))


def _with_segments(*segments: bytes) -> bytes:
    whole = images.encode(images.photo(), "JPEG")
    return b"".join([whole[:2], *segments, whole[2:]])


def _with_comments(comments: bytes) -> bytes:
    whole = images.encode(images.photo(mode="P"), "GIF")
    start = 13 + (6 << (whole[10] & 7))
    return whole[:start] + comments + whole[start:]


def _exif_segments(exif: bytes) -> bytes:
    parts = [exif[start : start + 65_000] for start in range(0, len(exif), 65_000)]
    return _with_segments(*(bombs.segment(0xE1, b"Exif\0\0" + part) for part in parts))


def _disposed_gif() -> bytes:
    """A GIF for whose disposal Pillow would allocate 4 GiB when it is opened."""
    size = struct.pack("<HH", 65_535, 65_535)
    control = b"!\xf9\x04" + bytes([2 << 2, 0, 0, 0, 0])
    return b"GIF89a" + size + bytes(3) + control + b"," + bytes(4) + size + b"\0\2\1\0\0;"


def _png_with(chunks: bytes) -> bytes:
    return bombs.png(9, 9, bombs.GREY, chunks=chunks)


NO_PIXELS: dict[str, tuple[Callable[[], bytes], str]] = {
    "EXIF of a PNG": (lambda: _png_with(bombs.chunk(b"eXIf", COPIES)), "RGB"),
    "EXIF of a JPEG": (lambda: _exif_segments(COPIES), "RGB"),
    "EXIF of a JPEG without pixels": (lambda: _exif_segments(COPIES)[: len(COPIES)], "ImageError"),
    "EXIF of a JPEG in an extension": (
        lambda: _with_segments(bombs.segment(0xF0, _exif_segments(COPIES[:65_000])[2:65_050])),
        "RGB",
    ),
    "tables of a JPEG": (
        lambda: _with_segments(bombs.segment(0xDB, bytes(65 * 1000)) * 500),
        "ImageError",
    ),
    "EXIF of a WebP": (lambda: images.encode(images.photo(), "WEBP", exif=COPIES), "RGB"),
    "segments of a JPEG": (
        lambda: _with_segments(bombs.segment(0xEF, b"") * 1_000_000),
        "ImageError",
    ),
    "fill bytes of a JPEG": (lambda: _with_segments(b"\xff" * 10_000_000), "RGB"),
    "long comment of a GIF": (lambda: _with_comments(b"!\xfe" + b"\1a" * 60_000 + b"\0"), "RGB"),
    "comments of a GIF": (lambda: _with_comments(b"!\xfe\1a\0" * 1_000_000), "ImageError"),
    "chunks of a PNG": (
        lambda: _png_with(bombs.chunk(b"prVt", b"") * 1_000_000),
        "ImageError",
    ),
    "chunks of a PNG's pixels": (
        lambda: _png_with(bombs.chunk(b"IDAT", b"") * 60_000),
        "RGB",
    ),
    "compressed texts of a PNG": (lambda: _png_with(INFLATING_TEXT * 50_000), "RGB"),
    "disposal of a GIF": (_disposed_gif, "ImageError"),
}


@pytest.mark.parametrize("name", NO_PIXELS)
def test_what_is_not_pixels_costs_little(server: Server, tmp_path: Path, name: str) -> None:
    generate, outcome = NO_PIXELS[name]
    file = tmp_path / "file"
    file.write_bytes(generate())
    burden = server.decode([file] * PROCESSES)
    assert set(burden.outcomes) == {outcome}
    assert burden.seconds < 1
    assert burden.peak < 200 * MIB


@pytest.fixture
def lock_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for the lock file, which this process opens anew."""
    monkeypatch.setattr(sharing, "MAX_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sharing.lock_file.cache_clear()
    yield tmp_path
    sharing.lock_file.cache_clear()


HOLDER = """
import sys
from scripts.repository.steps.preprocess import sharing
sharing.os.getppid = lambda: int(sys.argv[1])
with sharing.reserved(float(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holds(share: float) -> Iterator[subprocess.Popen[str]]:
    """Hold a share in another process of the same parent."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(os.getppid()), str(share)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": tempfile.gettempdir()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.communicate()


def test_shares_of_all_processes_together_are_at_most_one(lock_folder: Path) -> None:
    with another_process_holds(0.5):
        with sharing.reserved(0.5):
            pass
        with (
            pytest.raises(Busy, match="other large images are being decoded; try again"),
            sharing.reserved(0.6),
        ):
            raise AssertionError
        with sharing.reserved(0.5):  # what the refused image had collected was given back
            pass
    with sharing.reserved(1):
        pass


def test_share_of_a_killed_process_is_free_again(lock_folder: Path) -> None:
    with another_process_holds(1) as process:
        process.kill()
        process.wait()
        with sharing.reserved(1):
            pass


def test_small_image_is_decoded_while_large_ones_are(lock_folder: Path) -> None:
    with another_process_holds(1):
        assert load(SAMPLE.read_bytes(), Recipe()).size == (224, 224)
        with pytest.raises(Busy):
            load(bombs.png(5_000, 5_000, bombs.RGB), Recipe())


def test_lock_file_is_private(lock_folder: Path) -> None:
    with sharing.reserved(1):
        (file,) = lock_folder.iterdir()
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("obstacle", ["symbolic link", "folder", "no folder"])
def test_images_are_decoded_if_the_lock_file_cannot_be_used(
    lock_folder: Path, obstacle: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = lock_folder / f"triton-decoding-{os.getppid()}"
    if obstacle == "symbolic link":
        file.symlink_to(lock_folder / "elsewhere")
    elif obstacle == "folder":
        file.mkdir()
    else:
        lock_folder.rmdir()
    for _ in range(2):
        assert load(bombs.png(3_000, 3_000, bombs.RGB), Recipe()).size == (224, 224)
    assert len(caplog.messages) == 1
    assert "large images are decoded without a common limit" in caplog.text
    assert not (lock_folder / "elsewhere").exists()


@pytest.mark.parametrize("number", ["max_bytes", "max_pixels", "max_side", "max_memory"])
def test_limits_are_positive(number: str) -> None:
    with pytest.raises(ValueError, match=f"{number} must be positive"):
        Limits(**{number: 0})


def test_limits_are_read_back_from_their_json() -> None:
    limits = Limits(1, 2, 3, 4, 5.5)
    assert Limits.from_json(limits.to_json()) == limits
