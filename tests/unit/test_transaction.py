"""Transactions on a folder: what takes its place, what survives, who waits, what is refused."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.repository import transaction
from scripts.repository.errors import BuildError
from scripts.repository.transaction import Transaction
from tests.conftest import ROOT
from tests.files import contents


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, a foreign folder and a link."""
    folder = tmp_path / "with spaces ü" / "folder"
    (folder / ".git" / "objects").mkdir(parents=True)
    (folder / ".git" / "objects" / "ab").write_text("an object")
    (folder / "file").write_text("old")
    (folder / "link").symlink_to("file")
    (folder / "lost+found").mkdir(mode=0o700)
    return folder


def change(folder: Path, text: str = "new") -> None:
    with Transaction(folder) as opened:
        staged = opened.stage()
        (staged / "file").unlink()
        (staged / "file").write_text(text)
        opened.commit()


def siblings(folder: Path) -> list[str]:
    return [path.name for path in folder.parent.iterdir()]


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder on a file system in memory, where nothing waits for a disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    ("how", "rename", "every"),
    [
        ("SIGKILL", "exchange", 5),
        ("SIGKILL", "two", 10),
        ("SIGINT", "exchange", 10),
        ("ENOSPC", "exchange", 10),
    ],
)
def test_a_build_interrupted_at_any_operation_is_done_or_not(
    memory: Path, how: str, rename: str, every: int
) -> None:
    command = [sys.executable, "-m", "tests.interruptions", str(memory), how, rename, str(every)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    *problems, summary = output.splitlines()
    assert problems == []
    assert int(summary.split()[0]) > 400 / every


def test_what_is_not_committed_is_discarded(folder: Path) -> None:
    before = contents(folder)
    with Transaction(folder) as opened:
        (opened.stage() / "more").write_text("text")
        assert opened.current == opened.stage()
        assert contents(folder) == before
    assert contents(folder) == before
    assert siblings(folder) == ["folder"]


def test_a_new_folder_appears_when_it_is_committed(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "new"
    with Transaction(folder) as opened:
        (opened.stage() / "file").write_text("text")
        assert not folder.exists()
        opened.commit()
        assert opened.current == folder
    assert contents(folder) == {"file": b"text"}


def test_what_a_transaction_does_not_touch_survives(folder: Path) -> None:
    folder.chmod(0o2750)
    if os.geteuid() == 0:
        os.chown(folder / ".git", 1000, 1000)
    before = {path: path.lstat() for path in folder.rglob("*")} | {folder: folder.stat()}
    for text in ("new", "newer"):
        change(folder, text)
    assert (folder / "file").read_text() == "newer"
    assert (folder / "link").is_symlink()
    assert (folder / "link").read_text() == "newer"
    for path, old in before.items():
        new = path.lstat()
        assert (new.st_mode, new.st_uid, new.st_gid) == (old.st_mode, old.st_uid, old.st_gid)
        if path.name in {"ab", "link"}:
            assert new.st_ino == old.st_ino


def test_files_are_copied_if_they_cannot_be_linked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    before = contents(folder)
    change(folder)
    assert contents(folder) == before | {"file": b"new", "link": b"new"}
    assert (folder / "link").is_symlink()


def test_a_link_to_the_folder_stays_one(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    change(link)
    assert link.is_symlink()
    assert (folder / "file").read_text() == "new"


@pytest.mark.parametrize("path", ["folder/", "./folder", "../with spaces ü/folder"])
def test_a_relative_path_names_the_same_folder(
    folder: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    change(Path(path))
    assert (folder / "file").read_text() == "new"


def test_a_file_system_that_cannot_exchange_folders_gets_two_renames_and_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transaction, "RENAME_EXCHANGE", 1 << 30)  # EINVAL: no such flag
    change(folder)
    assert (folder / "file").read_text() == "new"
    assert "cannot exchange folders" in caplog.text
    assert siblings(folder) == ["folder"]


def test_a_second_process_waits_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    ended = []

    def second() -> None:
        change(folder, "second")
        ended.append(True)

    thread = threading.Thread(target=second)
    with Transaction(folder) as opened:
        thread.start()
        thread.join(0.3)
        assert not ended
        assert "waiting for another build" in caplog.text
        (opened.stage() / "more").write_text("text")
        opened.commit()
    thread.join(30)
    assert (folder / "file").read_text() == "second"
    assert (folder / "more").read_text() == "text"
    assert siblings(folder) == ["folder"]


def test_a_build_goes_on_without_a_lock_if_there_are_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    change(folder)
    assert (folder / "file").read_text() == "new"
    assert "No locks available" in caplog.text


@pytest.mark.parametrize("place", [".", "lost+found"])
def test_a_folder_that_one_stands_in_is_refused(
    folder: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / place)
    with pytest.raises(BuildError, match="run it from a folder outside"):
        change(folder)
    assert siblings(folder) == ["folder"]


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("", r"is a mount point, .* such as --output .*folder/repository"),
        ("/lost+found", r"lost\+found is a mount point: unmount it, or choose another folder"),
    ],
)
def test_a_mount_point_is_refused(
    folder: Path, inside: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    place = f"{folder}{inside}".replace(" ", r"\040")
    mounts.write_text(
        f"36 35 98:0 / / rw - ext4 /dev/a rw\n37 36 98:0 / {place} rw - ext4 /dev/b rw"
    )
    monkeypatch.setattr(transaction, "MOUNTS", mounts)
    with pytest.raises(BuildError, match=message):
        change(folder)


def test_the_root_is_refused() -> None:
    with pytest.raises(BuildError, match="run it from a folder outside"):
        change(Path("/"))


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV])
def test_a_folder_that_cannot_be_renamed_stays_and_is_reported_in_one_line(
    folder: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_one: Path, other: Path) -> bool:
        raise OSError(number, os.strerror(number), str(other))

    monkeypatch.setattr(transaction, "_exchange", refuse)
    with pytest.raises(BuildError, match="a build cannot replace; choose a folder in it"):
        change(folder)
    assert (folder / "file").read_text() == "old"
    assert siblings(folder) == ["folder"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_parent_that_cannot_be_written_is_reported_in_one_line(
    folder: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(BuildError, match=r"cannot create .*\.folder\.staging: .*; choose another"):
        change(folder)


def test_the_staged_copy_is_private_and_the_new_folder_is_not(tmp_path: Path) -> None:
    with Transaction(tmp_path / "folder") as opened:
        staged = opened.stage()
        assert stat.S_IMODE(staged.parent.stat().st_mode) == 0o700
        opened.commit()
    (tmp_path / "usual").mkdir()
    assert (tmp_path / "folder").stat().st_mode == (tmp_path / "usual").stat().st_mode
