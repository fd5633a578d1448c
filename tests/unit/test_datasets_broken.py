"""Folders and archives in which something is damaged, hostile or only strange."""

import bz2
import gzip
import importlib
import io
import lzma
import os
import socket
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.evaluation.datasets import open_dataset, open_folders, open_unlabelled
from scripts.evaluation.errors import EvaluationError
from scripts.repository.steps.preprocess.limits import Limits
from tests.datasets import ANIMALS, IDS, fill, labels_of, picture, write_tar

A, B = f"{IDS[0]}/a.png", f"{IDS[1]}/b.png"


def test_what_is_not_an_image_is_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hidden = [f"{IDS[0]}/._a.png", f"{IDS[0]}/.DS_Store", f"__MACOSX/{A}", ".git/x.png"]
    usual = ["README.md", f"{IDS[0]}/a.xml", f"{IDS[1]}/Thumbs.db"]
    folder = fill(tmp_path, [A, B, "stray.png", "photo.heic", "scan.tiff", *hidden, *usual])
    (folder / "nothing").mkdir()
    assert labels_of(open_dataset(folder, ANIMALS)) == {A: 0, B: 1}
    assert [message.removeprefix(f"{folder}: ") for message in caplog.messages] == [
        "ignored 2 files (not JPEG, PNG, WebP, BMP or GIF by the suffix): "
        "'photo.heic', 'scan.tiff'",
        "ignored 1 folder (empty): 'nothing'",
        "left out 1 image without a label: 'stray.png'",
    ]


def test_pipes_sockets_and_dead_links_are_not_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fill(tmp_path / "data", [A])
    os.mkfifo(folder / IDS[0] / "pipe.png")
    (folder / IDS[0] / "dead.png").symlink_to(tmp_path / "gone.png")
    (folder / IDS[0] / "itself.png").symlink_to("itself.png")
    (folder / "folder.png").symlink_to("folder.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s.png"))
        assert labels_of(open_dataset(folder, ANIMALS)) == {A: 0}
    assert (
        "ignored 5 files (neither a file nor a folder, or a link to nothing): 'fold" in caplog.text
    )


def test_links_to_files_and_folders_are_followed_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = fill(tmp_path / "store", ["blob.png", "animals/x.png"])
    folder = fill(tmp_path / "data", [A])
    (folder / IDS[0] / "linked.png").symlink_to(store / "blob.png")
    (folder / IDS[1]).symlink_to(store / "animals")
    (folder / IDS[0] / "around").symlink_to(folder)
    expected = {A: 0, f"{IDS[0]}/linked.png": 0, f"{IDS[1]}/x.png": 1}
    assert labels_of(open_dataset(folder, ANIMALS)) == expected
    assert f"ignored 1 link (to a folder around it): '{IDS[0]}/around'" in caplog.text


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Let the test run without root's right to read every file."""
    importlib.import_module("scripts.evaluation.datasets.parquet")  # while its files can be read
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield
    if is_root:
        os.seteuid(0)


@pytest.mark.parametrize("closed", ["", IDS[0]])
def test_a_folder_that_cannot_be_listed_is_refused(closed: str, unprivileged: None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = fill(Path(name) / "data", [A, B])
        (folder / closed).chmod(0)
        message = f"cannot list {folder / closed}: Permission denied; give a folder that you may"
        with pytest.raises(EvaluationError, match=message):
            open_dataset(folder, ANIMALS)
        if not closed:
            with pytest.raises(EvaluationError, match=r"cannot read .*: Permission denied; give"):
                open_dataset(folder / IDS[0], ANIMALS)
        (folder / closed).chmod(0o700)


def test_files_that_may_not_be_read_are_refused(unprivileged: None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = fill(Path(name) / "data", ["a.png"])
        for file in ("val.tar", "val.parquet", "truth.txt"):
            (folder.parent / file).touch(0)
        for path in ("val.tar", "val.parquet"):
            with pytest.raises(
                EvaluationError, match=f"cannot read .*/{path}: .*Permission denied"
            ):
                open_unlabelled(folder.parent / path)
        truth = folder.parent / "truth.txt"
        with pytest.raises(EvaluationError, match=r"cannot read .*/truth.txt: Permission denied"):
            open_dataset(folder, ANIMALS, ground_truth=truth)


def test_paths_that_cannot_exist_are_refused(tmp_path: Path) -> None:
    for name in ("x" * 300, "a\0b", "file/below"):
        (tmp_path / "file").touch()
        with pytest.raises(EvaluationError, match="give a folder of images, a tar, or parquet"):
            open_unlabelled(tmp_path / name)


def test_any_file_name_can_be_printed(tmp_path: Path) -> None:
    folder = tmp_path / IDS[0]
    folder.mkdir()
    for name in (b"\xff.png", b"a\nb.png", b"c,d e.png", "é.png".encode()):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(picture())
    samples = list(open_dataset(tmp_path, ANIMALS).samples())
    names = {sample.name.removeprefix(f"{IDS[0]}/") for sample in samples}
    assert names == {"\\xff.png", "a\nb.png", "c,d e.png", "é.png"}
    assert all(Path(str(sample.source)).read_bytes() == picture() for sample in samples)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_archives_are_refused_with_the_command(tmp_path: Path, compress: object) -> None:
    data = write_tar(tmp_path / "val.tar", {A: picture()}).read_bytes()
    file = tmp_path / "my val.tar.gz"
    file.write_bytes(compress(data))  # type: ignore[operator]
    with pytest.raises(EvaluationError, match=r"is compressed.*; run: \w+ -d '.*/my val.tar.gz'$"):
        open_dataset(file, ANIMALS)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "val.zip", "w") as archive:
        archive.writestr(A, picture())
    (tmp_path / "val.txt").write_text("a.png 1\n" * 100)
    os.mkfifo(tmp_path / "pipe")
    fill(tmp_path, ["a.png"])
    for name, message in (
        ("val.zip", "is compressed.*; run: unzip"),
        ("val.txt", "is neither a tar nor parquet; .* and a file with labels as --ground-truth"),
        ("pipe", "is neither a folder nor a file; give a folder of images, a tar, or parquet"),
        ("gone", "does not exist; give a folder of images, a tar, or parquet files"),
        ("a.png", "is one image; give the folder that has it"),
        ("gone-*.parquet", "does not exist"),
    ):
        for call in (open_unlabelled, open_folders):
            with pytest.raises(EvaluationError, match=message):
                call(tmp_path / name)


def test_names_in_an_archive_are_only_names(tmp_path: Path) -> None:
    outside = [f"/{A}", f"../../{IDS[0]}/up.png", f"./{B}"]
    archive = write_tar(tmp_path / "val.tar", {name: picture() for name in outside})
    samples = list(open_unlabelled(archive).samples())
    assert {sample.name for sample in samples} == {*outside[:2], B}
    assert {sample.source for sample in samples} == {picture()}


def test_members_that_are_no_images_are_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "val.tar"
    with tarfile.open(file, "w") as archive:
        for name, data in ((A, b"old"), (B, picture()), ("._x.png", b""), (A, picture(1))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, kind in (("l.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, A
            archive.addfile(member)
        archive.addfile(tarfile.TarInfo("x.heic"))
    dataset = open_dataset(file, ANIMALS)
    assert [(sample.label, sample.source) for sample in dataset.samples()] == [
        (0, picture(1)),
        (1, picture()),
    ]
    assert [message.removeprefix(f"{file}: ") for message in caplog.messages] == [
        "ignored 1 member (not JPEG, PNG, WebP, BMP or GIF by the suffix): 'x.heic'",
        "ignored 2 members (a link, or not a plain file): 'l.png', 'h.png'",
        f"ignored 1 member (replaced by a later member of the same name): '{A}'",
    ]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut in an image", "is damaged or incomplete"),
        ("cut between images", "is damaged or incomplete after byte"),
        ("a broken header", "is damaged or incomplete after byte"),
        ("two archives", "is several archives, one after the other; unpack them"),
        ("archives in it", "has archives in it, such as 'n01440764.tar'; unpack"),
        ("negative size", r"is damaged or incomplete \(negative size\)"),
        ("no images", "has no images"),
        ("empty", "is damaged or incomplete"),
        ("text", "is damaged or incomplete"),
    ],
)
def test_damaged_archives_are_refused(tmp_path: Path, damage: str, message: str) -> None:
    file = write_tar(tmp_path / "val.tar", {f"{number}.png": picture() for number in range(9)})
    data = bytearray(file.read_bytes())
    header = data.index(b"4.png")
    if damage == "cut in an image":
        del data[header + 520 :]
    elif damage == "cut between images":
        del data[header:]
    elif damage == "a broken header":
        data[header] = 0xFF
    elif damage == "negative size":
        member = tarfile.TarInfo("4.png")
        member.size = -1024
        data[header : header + 512] = member.tobuf(tarfile.GNU_FORMAT)
    elif damage == "two archives":
        data = data + data
    elif damage == "archives in it":
        data = bytearray(write_tar(file, {"n01440764.tar": bytes(data)}).read_bytes())
    elif damage == "no images":
        data = bytearray(write_tar(file, {"README": b""}).read_bytes())
    else:
        data = bytearray(b"" if damage == "empty" else b"x" * 2000)
    file.write_bytes(data)
    with pytest.raises(EvaluationError, match=message) as raised:
        open_unlabelled(file)
    assert "\n" not in str(raised.value)


def header(name: str, **fields: Any) -> bytes:
    member = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(tarfile.PAX_FORMAT if member.pax_headers else tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "content",
    [
        header("p", type=tarfile.XHDTYPE, size=1 << 40),
        header("p", type=tarfile.XHDTYPE, size=-1024),
        header("p", type=tarfile.XHDTYPE) * 5000,
        header("p", type=tarfile.GNUTYPE_LONGNAME, size=1 << 32),
        header("p", type=tarfile.GNUTYPE_LONGNAME) * 5000,
        header("p", pax_headers={"GNU.sparse.map": "a,b"}),
        header("p", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}) + b"9\n",
        header("p", pax_headers={"size": "-1024"}),
        header("p", pax_headers={"size": "9" * 50}),
    ],
)
@pytest.mark.parametrize("name", ["val.tar", "val"])
def test_hostile_headers_are_refused(tmp_path: Path, content: bytes, name: str) -> None:
    file = write_tar(tmp_path / name, {A: picture()})
    data = file.read_bytes()
    member = content + bytes(-len(content) % 512)
    file.write_bytes(member + data if name == "val" else data[:1024] + member + data)
    with pytest.raises(EvaluationError, match=r"is damaged or incomplete \(.*; copy or") as raised:
        open_unlabelled(file)
    assert "\n" not in str(raised.value)


def test_of_a_huge_member_only_what_the_server_refuses_is_read(tmp_path: Path) -> None:
    file, size = tmp_path / "val.tar", 20 << 30
    with file.open("wb") as archive:  # which takes no space on the disk
        archive.write(header("huge.png", size=size))
        archive.truncate(512 + size + 1024)
    (sample,) = open_unlabelled(file).samples()
    assert isinstance(sample.source, bytes)
    assert len(sample.source) == Limits().max_bytes + 1


def test_an_archive_takes_little_memory_whatever_its_size(tmp_path: Path) -> None:
    file, count, data = tmp_path / "val.tar", 4000, picture() + bytes(2000)
    write_tar(file, dict.fromkeys(map("{}.png".format, range(count)), data))
    tracemalloc.start()
    dataset = open_unlabelled(file)
    assert sum(sample.source == data for sample in dataset.samples()) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20  # bytes; the file has 12 MB, its members' headers as objects 5 MB


@pytest.mark.parametrize("prefix", ["/", "/data/", "../", "a/../"])
def test_an_archive_of_absolute_paths_has_folders_of_classes(tmp_path: Path, prefix: str) -> None:
    archive = write_tar(tmp_path / "val.tar", {prefix + A: picture(), prefix + B: picture()})
    assert list(labels_of(open_dataset(archive, ANIMALS)).values()) == [0, 1]
    mixed = write_tar(tmp_path / "mixed.tar", {f"/{A}": picture(), A: picture(), B: picture()})
    assert len(open_folders(mixed)) == 2
